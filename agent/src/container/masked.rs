//! Paths that the container sees but must not read, or not write.
//!
//! A masked file is replaced by the guest's null device, a masked directory by an empty read-only tmpfs; a
//! read-only path is covered by a read-only copy of itself. What is missing needs no mask. Paths are resolved after all
//! mounts, and from the mount that they are in: that of /proc is still the same when somebody has moved the directory.

use std::os::fd::OwnedFd;

use bulkhead_sys::mount::Attributes;
use rustix::io::Errno;

use super::{
    detached::{attach, clone_tree, filesystem},
    error::{ContainerError, During},
    path::{Root, is_directory},
};

/// The guest's null device, as often as it is needed.
#[derive(Debug)]
pub(super) struct Cover {
    null: OwnedFd,
    /// A mount that is attached nowhere cannot be cloned by every kernel, so the first use is of the thing itself.
    attached: bool,
}

impl Cover {
    /// `null` is a detached mount of the null device.
    pub(super) fn new(null: OwnedFd) -> Self {
        Self { null, attached: false }
    }

    fn put_on(&mut self, place: &OwnedFd) -> Result<(), Errno> {
        if self.attached {
            return attach(clone_tree(&self.null, false)?, place);
        }
        attach(&self.null, place)?;
        self.attached = true;
        Ok(())
    }
}

/// Hides one path.
pub(super) fn mask(root: &Root, path: &str, cover: Option<&mut Cover>) -> Result<(), ContainerError> {
    const STEP: &str = "mask";
    let Some(place) = find(root, path).during(STEP, path)? else { return Ok(()) };
    if is_directory(&place).during(STEP, path)? {
        let empty = filesystem("tmpfs", "tmpfs", &["ro"], &["size=0k"]).during(STEP, path)?;
        Attributes::read_only().apply(&empty).during(STEP, path)?;
        return attach(empty, place).during(STEP, path);
    }
    let cover = cover.ok_or("the guest has no null device").during(STEP, path)?;
    cover.put_on(&place).during(STEP, path)
}

/// Makes one path, and all that is mounted below it, read-only.
pub(super) fn make_read_only(root: &Root, path: &str) -> Result<(), ContainerError> {
    const STEP: &str = "make read-only";
    let Some(place) = find(root, path).during(STEP, path)? else { return Ok(()) };
    let copy = clone_tree(&place, true).during(STEP, path)?;
    Attributes::read_only().recursive().apply(&copy).during(STEP, path)?;
    attach(copy, place).during(STEP, path)
}

fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>, Errno> {
    match root.place(path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
