//! Where things are in the guest.

use std::path::PathBuf;

use super::launch::Launcher;
use crate::boot::{CGROUP, SHARE};

/// Where the guest keeps what containers are made of. Tests point elsewhere.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Starts container-init.
    pub launcher: Launcher,
    /// The root of the share.
    pub share: PathBuf,
    /// The cgroup2 mount.
    pub cgroups: PathBuf,
}

impl Layout {
    pub fn guest() -> Self {
        Self { launcher: Launcher::new("/proc/self/exe"), share: SHARE.into(), cgroups: CGROUP.into() }
    }
}
