//! The staging: an empty tmpfs over the guest's root, in which a container's tree is put together.
//!
//! The guest runs from an initramfs, whose root can be neither pivoted nor unmounted: the staging on top of it can. It carries
//! a whole procfs and sysfs, without which a user namespace may not mount its own.

use std::{os::fd::OwnedFd, path::Path};

use bulkhead_sys::mount_table::{Entry, MountTable};
use rustix::{
    fs::{Mode, OFlags, mkdirat, open},
    io::Errno,
    mount::{UnmountFlags, unmount},
    process::{chdir, chroot, fchdir},
};

use super::{
    detached::{attach, clone_tree, filesystem},
    error::{ContainerError, During},
};

/// Where the rootfs is attached before it becomes "/".
pub(super) const ROOT: &str = "/rootfs";
/// The whole procfs of the staging, for sysctl.
const SYSCTL: &str = "/proc/sys";
/// The whole sysfs of the staging: what a user namespace without its own network gets a copy of.
const SYSFS: &str = "/sys";

/// Leaves the guest's tree for an empty tmpfs. In a mount namespace of the launcher's own, whose mounts are private.
pub(super) fn enter() -> Result<(), ContainerError> {
    const STEP: &str = "make staging";
    let staging = filesystem("tmpfs", "staging", &[], &["mode=755", "size=1m"]).during(STEP, "tmpfs")?;
    let procfs = filesystem("proc", "proc", &[], &[]).during(STEP, "proc")?;
    let sysfs = filesystem("sysfs", "sysfs", &[], &[]).during(STEP, "sysfs")?;
    for name in ["rootfs", "proc", "sys"] {
        mkdirat(&staging, name, Mode::from_raw_mode(0o755)).during(STEP, name)?;
    }
    let table = MountTable::read().during("read mounts of", "/")?;
    for point in top_mount_points(&table) {
        // Best effort: what stays is out of reach below the staging anyway.
        let _ = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    let root = open_directory("/").during(STEP, "/")?;
    attach(&staging, &root).during(STEP, "/")?;
    fchdir(&staging).during(STEP, "/")?;
    chroot(".").during(STEP, "/")?;
    chdir("/").during(STEP, "/")?;
    for (mount, path) in [(procfs, "/proc"), (sysfs, SYSFS)] {
        let place = open_directory(path).during(STEP, path)?;
        attach(&mount, &place).during(STEP, path)?;
    }
    Ok(())
}

/// The mount points whose parent is the root mount, last mounted first.
fn top_mount_points(table: &MountTable) -> Vec<&Path> {
    let is_root = |entry: &&Entry| entry.point == Path::new("/");
    let Some(root) = table.entries().iter().rfind(is_root) else { return Vec::new() };
    let below = table.entries().iter().rev().filter(|entry| entry.parent == root.id && !is_root(entry));
    below.map(|entry| entry.point.as_path()).collect()
}

/// A copy of the staging's sysfs, for whom the kernel refuses a mount of its own.
pub(super) fn copy_of_sysfs() -> Result<OwnedFd, Errno> {
    let place = open_directory(SYSFS)?;
    clone_tree(place, true)
}

/// The directory /proc/sys of the staging's procfs.
pub(super) fn open_sysctl() -> Result<OwnedFd, ContainerError> {
    open_directory(SYSCTL).during("open", SYSCTL)
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests;
