//! The mount namespace: the share becomes the root, and the only procfs shows this process alone.
//!
//!   fchdir(share) ─▶ unshare mounts ─▶ all mounts slave ─▶ detached procfs ─▶ clone of the share's tree ─▶ pivot
//!
//! Slave and not private: a mount that the host makes in the share later shows here. The procfs is taken before the
//! pivot, since the kernel wants to see a full /proc in the namespace, and in the process that stays, since
//! /proc/self is resolved when it is opened. The host's /proc would not do: `..` of its fd directory is every
//! process of the host.

use std::{fs::File, os::fd::OwnedFd};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
        open_tree, unmount,
    },
    process::{chdir, fchdir, pivot_root},
};

use super::{JailError, last, step};

pub(super) fn pivot_into(share: &OwnedFd) -> Result<File, JailError> {
    fchdir(share).map_err(step("enter the share"))?;
    // SAFETY: changes the mount namespace of this process, which has one thread; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(last("unshare the mount namespace"));
    }
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(step("make all mounts slaves"))?;
    let proc_self_fd = proc_self_fd()?;

    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = open_tree(CWD, ".", clone).map_err(step("clone the share's mounts"))?;
    move_mount(&root, "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(step("mount the share on itself"))?;
    fchdir(&root).map_err(step("enter the new root"))?;
    // New root and place of the old one in one: the old root ends up on top, and the unmount takes it away.
    pivot_root(".", ".").map_err(step("pivot into the share"))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("detach the host's mounts"))?;
    chdir("/").map_err(step("enter the root"))?;
    Ok(proc_self_fd)
}

fn proc_self_fd() -> Result<File, JailError> {
    let proc = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("open a procfs"))?;
    fsconfig_set_string(&proc, "subset", "pid").map_err(step("restrict the procfs to processes"))?;
    fsconfig_set_string(&proc, "hidepid", "ptraceable").map_err(step("hide processes in the procfs"))?;
    fsconfig_create(&proc).map_err(step("create a procfs"))?;
    let proc = fsmount(&proc, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(step("make a detached mount of the procfs"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fds = openat(&proc, "self/fd", flags, Mode::empty()).map_err(step("open self/fd of the procfs"))?;
    Ok(fds.into())
}
