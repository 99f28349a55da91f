//! A proxy's own mount namespace: the container's rootfs, read-only, and nothing else of the host.
//!
//! Callers enter `/proc/PID/ns/mnt` of the pid they were given and read or write at `/`, believing to be in the
//! container (`podman cp` does). In the host's namespace they would write to the host. Reading works here, writing says
//! EROFS. A rootfs that cannot be shown (the host's root being an initramfs, say) gives an empty directory instead.

use std::{io, path::Path};

use rustix::{
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
        move_mount, open_tree, unmount,
    },
    process::{chdir, pivot_root},
    thread::UnshareFlags,
};

use crate::sandbox::set_read_only;

#[derive(Debug, thiserror::Error)]
#[error("move the proxy into a view of the container: {step}")]
pub struct IsolateError {
    step: &'static str,
    source: io::Error,
}

fn at(step: &'static str) -> impl Fn(Errno) -> IsolateError {
    move |errno| IsolateError { step, source: errno.into() }
}

/// To be called while this process has one thread. Paths of the host mean nothing afterwards.
pub(super) fn enter(rootfs: &Path) -> Result<(), IsolateError> {
    // SAFETY: the process has one thread, and only its mount namespace, root and working directory stop being shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(at("unshare"))?;
    // Nothing that is done here may reach the host, and host mounts must not be kept alive by our copies.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(at("private"))?;
    if show(rootfs).is_err() {
        mount("none", "/", "tmpfs", MountFlags::empty(), c"mode=0555,size=4k").map_err(at("tmpfs"))?;
        pivot(Path::new("/")).map_err(at("pivot_root"))?;
    }
    Ok(())
}

fn show(rootfs: &Path) -> Result<(), Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(rustix::fs::CWD, rootfs, flags)?;
    set_read_only(std::os::fd::AsFd::as_fd(&tree), true)?;
    move_mount(&tree, "", rustix::fs::CWD, rootfs, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    pivot(rootfs)
}

/// The old root is stacked on the new one and detached, so no directory for it is needed.
fn pivot(new_root: &Path) -> Result<(), Errno> {
    chdir(new_root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}
