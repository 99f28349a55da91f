//! What a sandbox server is told of the sandbox to make.

use std::path::{Path, PathBuf};

use bulkhead_protocol::{
    id::{ContainerId, SandboxId},
    vmm::HugePages,
};
use serde::{Deserialize, Serialize};

use super::{
    binfmt::Foreign,
    cgroup::Place,
    sizing::{Memory, Sizes},
};
use crate::{config::Config, spec::HostLimits};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxPlan {
    /// Holds all state directories; absolute.
    pub root: PathBuf,
    pub id: SandboxId,
    /// The container that it is started for: its limits size the machine, and its cgroup has it.
    pub host_container: ContainerId,
    pub vmm: PathBuf,
    pub sizes: Sizes,
    /// That of the host container: server, VMM and its proxies go there.
    pub cgroup: Option<Place>,
    /// To set there.
    pub limits: HostLimits,
    /// Whether the first container's memory is limited.
    pub memory: Memory,
    /// For server and VMM; `None` leaves what they inherit.
    pub oom_score_adj: Option<i32>,
    /// The network namespace whose descriptor comes along.
    pub network: Option<PathBuf>,
    /// Whether the host kernel shall move frames, where it can.
    pub vhost_net: bool,
    /// Whether connections to the loopback addresses of the network namespace reach the guest.
    pub port_forward: bool,
    pub huge_pages: HugePages,
    /// Whether what the guest writes loses setuid, setgid and file capabilities.
    pub strip_setuid: bool,
    /// Whether a rootfs belongs to one container alone.
    pub exclusive_rootfs: bool,
    /// Handlers of foreign binaries for the guest.
    pub foreign: Vec<Foreign>,
    pub debug: bool,
    /// When the command was entered, CLOCK_MONOTONIC.
    pub command_ns: u64,
}

impl SandboxPlan {
    pub fn new(
        root: &Path,
        id: &SandboxId,
        host_container: &ContainerId,
        config: &Config,
        sizes: Sizes,
    ) -> Self {
        Self {
            root: root.to_owned(),
            id: id.clone(),
            host_container: host_container.clone(),
            vmm: config.vmm.clone(),
            sizes,
            cgroup: None,
            limits: HostLimits::default(),
            memory: Memory::Unlimited,
            oom_score_adj: None,
            network: None,
            vhost_net: config.vhost_net,
            port_forward: config.port_forward,
            huge_pages: config.huge_pages,
            strip_setuid: config.strip_setuid,
            exclusive_rootfs: config.exclusive_rootfs,
            foreign: Vec::new(),
            debug: false,
            command_ns: 0,
        }
    }
}
