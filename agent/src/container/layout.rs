//! Where things are in the guest.

use std::path::PathBuf;

use crate::boot::{CGROUP, SHARE};

/// Where the guest keeps what containers are made of. Tests point elsewhere.
#[derive(Debug, Clone)]
pub struct Layout {
    /// What is run as `container-init`.
    pub program: PathBuf,
    /// The root of the share.
    pub share: PathBuf,
    /// The cgroup2 mount.
    pub cgroups: PathBuf,
}

impl Layout {
    pub fn guest() -> Self {
        Self { program: "/proc/self/exe".into(), share: SHARE.into(), cgroups: CGROUP.into() }
    }
}
