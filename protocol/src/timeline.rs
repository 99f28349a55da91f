//! The phases of a start, stamped on the host only: a guest's clock drifts, and lies if it wants to.

use serde::{Deserialize, Serialize};

/// What has just happened. The order is the order of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The command was entered.
    Command,
    /// The sandbox server runs.
    ServerUp,
    /// The VMM was spawned.
    VmmSpawned,
    /// The VMM has given up the host.
    Jailed,
    /// KVM_CREATE_VM is done.
    VmCreated,
    /// The kernel and initramfs are in guest memory.
    KernelLoaded,
    /// The first vCPU entered the guest.
    KernelEntered,
    /// The agent's greeting has arrived.
    AgentUp,
    /// The container is made: rootfs mounted, init parked.
    ContainerCreated,
    /// The user's program was exec'd.
    ProcessStarted,
    /// The exit is known to the host.
    ProcessExited,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::ServerUp => "server-up",
            Self::VmmSpawned => "vmm-spawned",
            Self::Jailed => "jailed",
            Self::VmCreated => "vm-created",
            Self::KernelLoaded => "kernel-loaded",
            Self::KernelEntered => "kernel-entered",
            Self::AgentUp => "agent-up",
            Self::ContainerCreated => "container-created",
            Self::ProcessStarted => "process-started",
            Self::ProcessExited => "process-exited",
        }
    }
}

/// One stamp: CLOCK_MONOTONIC of the host, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub phase: Phase,
    pub monotonic_ns: u64,
}

impl Stamp {
    pub fn now(phase: Phase) -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // The monotonic clock starts at boot: never negative, and its nanoseconds are below 1e9.
        Self { phase, monotonic_ns: now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs() }
    }
}
