//! Keeps a container's cgroup until its processes are inside: they come late, when they have opened their devices.
//!
//!   Entrance::make ─▶ directory (or scope with a process that does nothing) ─▶ the processes enter ─▶ dropped

use std::path::{Path, PathBuf};

use bulkhead_protocol::id::ContainerId;
use serde::{Deserialize, Serialize};

use super::{CgroupError, Claim, make, refuse_taken, scope, scope::Holder};
use crate::store::{Journal, Scope};

/// Where a container's processes on the host go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Absolute, below the hierarchy's root.
    pub path: PathBuf,
    /// Where systemd is to make it.
    pub scope: Option<Scope>,
}

#[derive(Debug)]
pub struct Entrance {
    _kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// Free of others.
    Claimed(#[allow(dead_code, reason = "held for its lock")] Claim),
    /// There at all.
    Held(#[allow(dead_code, reason = "held for its process")] Holder),
}

impl Entrance {
    /// Makes the cgroup of a container, named in its journal before.
    ///
    /// # Errors
    /// When it cannot be made, or is in use.
    pub fn make(
        place: &Place,
        root: &Path,
        id: &ContainerId,
        journal: &Journal,
    ) -> Result<Self, CgroupError> {
        refuse_taken(&place.path, root, id)?;
        let Some(scope) = &place.scope else {
            return Ok(Self { _kept: Kept::Claimed(make(&place.path, journal)?) });
        };
        let holder = Holder::start()?;
        scope::make(&place.path, scope, id, holder.pid(), journal)?;
        Ok(Self { _kept: Kept::Held(holder) })
    }
}
