//! How a process is scheduled: its policy, its weight on disks, its CPUs.

use serde::{Deserialize, Serialize};

/// `None` leaves what the guest gives every process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduling {
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    /// Only for a process by `exec`.
    pub exec_cpus: Option<ExecCpus>,
}

/// `sched_attr` of sched_setattr(2), in its numbers and units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
}

/// ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoPriority {
    pub class: u16,
    pub priority: u16,
}

/// A set of the guest's CPUs, not empty: bit N is CPU N.
pub type Cpus = std::num::NonZeroU64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecCpus {
    /// Until the process is in the container's cgroup; `None` leaves the agent's.
    pub initial: Option<Cpus>,
    /// From then on; `None` is all that the cgroup allows.
    pub last: Option<Cpus>,
}
