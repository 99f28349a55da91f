//! Paths that the container sees but must not read, or not write.
//!
//! A masked file is replaced by the guest's null device, a masked directory by an empty read-only tmpfs; a
//! read-only path is covered by a read-only copy of itself. What is missing needs no mask. Paths are resolved inside
//! the rootfs after all mounts; that /proc and /sys are real directories there was checked when they were mounted.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::{
    error::{ContainerError, During},
    mounts::{self, Attributes, READ_ONLY},
    path::{Root, is_directory},
};

/// Hides one path. `null` is a detached mount of the guest's null device.
pub(super) fn mask(root: &Root, path: &str, null: Option<&OwnedFd>) -> Result<(), ContainerError> {
    const STEP: &str = "mask";
    let Some(place) = find(root, path).during(STEP, path)? else { return Ok(()) };
    if is_directory(&place).during(STEP, path)? {
        let empty = mounts::filesystem("tmpfs", "tmpfs", &["ro"], &["size=0k"]).during(STEP, path)?;
        Attributes::read_only().apply(empty.as_fd()).during(STEP, path)?;
        return mounts::attach(empty, place).during(STEP, path);
    }
    let null = null.ok_or("the guest has no null device").during(STEP, path)?;
    let cover = mounts::clone_tree(null, false).during(STEP, path)?;
    mounts::attach(cover, place).during(STEP, path)
}

/// Makes one path, and all that is mounted below it, read-only.
pub(super) fn make_read_only(root: &Root, path: &str) -> Result<(), ContainerError> {
    const STEP: &str = "make read-only";
    let Some(place) = find(root, path).during(STEP, path)? else { return Ok(()) };
    let copy = mounts::clone_tree(&place, true).during(STEP, path)?;
    let attributes = Attributes { set: READ_ONLY, recursive: true, ..Attributes::default() };
    attributes.apply(copy.as_fd()).during(STEP, path)?;
    mounts::attach(copy, place).during(STEP, path)
}

fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>, Errno> {
    match root.place(path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
