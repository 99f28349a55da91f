//! Where things are in the guest.

use std::path::{Path, PathBuf};

use super::{launch::Launcher, volumes::Volumes};
use crate::{
    boot::{CGROUP, SHARE, VOLUMES},
    host_sockets::HostSockets,
};

/// Where the guest keeps what containers are made of. Tests point elsewhere.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Starts container-init.
    pub launcher: Launcher,
    /// The root of the share.
    pub share: PathBuf,
    /// Those that containers use.
    pub volumes: Volumes,
    /// The cgroup2 mount.
    pub cgroups: PathBuf,
}

impl Layout {
    pub fn guest() -> Self {
        Self {
            launcher: Launcher::new("/proc/self/exe"),
            share: SHARE.into(),
            volumes: Volumes::below(Path::new(VOLUMES), HostSockets::default()),
            cgroups: CGROUP.into(),
        }
    }
}
