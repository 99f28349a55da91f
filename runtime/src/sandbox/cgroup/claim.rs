//! A cgroup is that of one container: empty when it comes, and what the VMM leaves in it goes with it.
//!
//!   `refuse_taken` ─▶ `Claim::take` ─▶ VMM inside ─▶ `undo::vacate` when the VMM is gone
//!
//! Whoever deletes a container kills what is left in its cgroup, so nobody else's processes may be there. runc refuses a
//! cgroup that is not empty as well.

use std::{fs, fs::File, path::Path};

use bulkhead_protocol::id::ContainerId;

use super::CgroupError;
use crate::{
    store::{Flock, StateDir},
    undo,
};

/// Whether a container may come into the cgroup at `path`, as far as can be seen without touching anything.
///
/// # Errors
/// When it has processes, or is that of another container under the same root.
pub(super) fn refuse_taken(path: &Path, root: &Path, id: &ContainerId) -> Result<(), CgroupError> {
    // Most are not there yet, and then nobody has them.
    if !path.exists() {
        return Ok(());
    }
    refuse_populated(path)?;
    for other in StateDir::list(root)?.into_iter().filter(|other| other != id) {
        // Deleted meanwhile, or not to be read: then its own delete says so.
        let Ok(dir) = StateDir::open(root, &other) else { continue };
        let entries = dir.journal().entries().unwrap_or_default();
        if undo::cgroups_held(&entries).any(|held| held == path) {
            return Err(CgroupError::Taken { path: path.to_owned(), id: other });
        }
    }
    Ok(())
}

/// Keeps other creations out of a cgroup until the processes of this one are in it.
#[derive(Debug)]
pub struct Claim {
    /// Of the directory.
    _lock: Flock,
}

impl Claim {
    /// # Errors
    /// When another creation is at it, or a process is in it.
    pub fn take(path: &Path) -> Result<Self, CgroupError> {
        let failed = |source| CgroupError::Claim { path: path.to_owned(), source };
        let directory = File::open(path).map_err(failed)?;
        let Some(lock) = Flock::take(directory).map_err(|errno| failed(errno.into()))? else {
            return Err(CgroupError::Populated { path: path.to_owned() });
        };
        refuse_populated(path)?;
        Ok(Self { _lock: lock })
    }
}

fn refuse_populated(path: &Path) -> Result<(), CgroupError> {
    // cgroup.events speaks for those below as well.
    let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
    if events.lines().any(|line| line == "populated 1") {
        return Err(CgroupError::Populated { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
