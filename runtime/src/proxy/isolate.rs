//! A proxy's own mount namespace: the container's rootfs and volumes, and nothing else of the host.
//!
//! Callers enter `/proc/PID/ns/mnt` of the pid they were given and read or write at `/`, believing to be in the
//! container (`podman cp` does). In the host's namespace they would write to the host. Here they reach what the container
//! has from the host. Where it has a filesystem of the guest's (`/proc`, a tmpfs), an empty read-only directory lies on top:
//! what was written below would not be seen in the container. When that cannot be done, and for `exec`, all of it is
//! read-only. A rootfs that cannot be shown (the host's root being an initramfs, say) gives an empty directory instead.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use bulkhead_protocol::container::MountSource;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
        OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_change, move_mount,
        open_tree, unmount,
    },
    process::{chdir, pivot_root},
    thread::UnshareFlags,
};

use crate::{
    container::ContainerPlan,
    sandbox::{is_memory, open_export, set_read_only},
};

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
pub(super) fn enter(rootfs: &Path, container: Option<&ContainerPlan>) -> Result<(), IsolateError> {
    // SAFETY: the process has one thread, and only its mount namespace, root and working directory stop being shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(at("unshare"))?;
    // Nothing that is done here may reach the host, and host mounts must not be kept alive by our copies.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(at("private"))?;
    if show(rootfs, container).is_err() {
        mount("none", "/", "tmpfs", MountFlags::empty(), c"mode=0555,size=4k").map_err(at("tmpfs"))?;
        pivot(Path::new("/")).map_err(at("pivot_root"))?;
    }
    Ok(())
}

fn show(rootfs: &Path, container: Option<&ContainerPlan>) -> Result<(), Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, rootfs, flags)?;
    // Before the pivot, after which the volumes are out of reach.
    let mounts = container.map_or(Err(Errno::ROFS), Covered::all);
    if mounts.is_err() || container.is_some_and(ContainerPlan::is_read_only) {
        set_read_only(tree.as_fd(), true)?;
    }
    move_mount(&tree, "", CWD, rootfs, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    pivot(rootfs)?;
    match mounts.and_then(|mounts| mounts.iter().try_for_each(Covered::attach)) {
        Ok(()) => Ok(()),
        Err(_) => set_read_only(tree.as_fd(), true),
    }
}

/// A mount of the container, and what lies there in the view.
struct Covered<'plan> {
    destination: &'plan str,
    tree: OwnedFd,
}

impl<'plan> Covered<'plan> {
    fn all(container: &'plan ContainerPlan) -> Result<Vec<Self>, Errno> {
        let mounts = &container.guest.mounts;
        let made = mounts.iter().filter(|mount| !matches!(mount.source, MountSource::Remount));
        made.map(|mount| {
            let MountSource::Export { name } = &mount.source else { return Ok((mount, empty()?)) };
            match container.exports.iter().find(|export| export.share == *name) {
                // Owners that are mapped would be written unmapped here, and memory of the guest is not to be seen.
                Some(export) if export.id_map.is_none() && !is_memory(export) => {
                    Ok((mount, open_export(export)?))
                }
                Some(_) | None => Ok((mount, empty()?)),
            }
        })
        .map(|made| made.map(|(mount, tree)| Self { destination: &mount.destination, tree }))
        .collect()
    }

    /// The guest has made the mount points, in the rootfs or in another mount. One that is not there is of the latter
    /// kind, below an empty directory of ours. The container may rename them meanwhile: they are resolved inside the
    /// view, and mounted on as what they were.
    fn attach(&self) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let place = match openat2(CWD, self.destination, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        let empty_paths = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.tree, "", &place, "", empty_paths)
    }
}

/// An empty directory that is not to be written to.
fn empty() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The old root is stacked on the new one and detached, so no directory for it is needed.
fn pivot(new_root: &Path) -> Result<(), Errno> {
    chdir(new_root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}
