//! The sandbox: one microVM per pod, and the server process that owns it.
//!
//!   launch (in the command) ─spawn─▶ server ─┬─ vmm ─▶ bulkhead-vmm
//!   client (command, proxies) ─▶ services ─▶ pod ─┴─ boot, agent ─▶ bulkhead-agent
//!                                             ├─ clock: the guest's time follows the host's
//!                                             ├─ nics: the pod's network devices
//!                                             ├─ table, status: what is known of containers and processes
//!                                             └─ share, cgroup, oom_score: what the host gives them
//!
//! The server is the only owner of a pod's state; everybody else asks it. Nothing it makes survives it but the state
//! directory and the cgroup, which `delete` removes by the journal.

mod agent;
mod boot;
pub mod cgroup;
pub mod client;
mod clock;
pub(crate) mod clock_source;
mod connections;
pub mod container;
mod expose;
#[cfg(fuzzing)]
pub mod fuzzing;
mod launch;
mod mount_points;
mod nics;
pub mod oom_score;
mod packets;
mod plan;
mod pod;
mod resize;
pub mod server;
mod services;
mod share;
pub mod sizing;
mod slots;
mod stats;
pub mod status;
mod stdio;
mod table;
mod timeline;
mod vmm;

pub use launch::{Launch, LaunchError};
pub use plan::{ContainerPlan, ExecPlan, Plan, PlanError};
pub use share::Export;
pub(crate) use share::{open_export, set_read_only};
pub(crate) use stats::from_any as metrics_from_any;
pub(crate) use stdio::vsock as vsock_stdio;
pub(crate) use vmm::pass_as;

#[cfg(test)]
mod fake;
#[cfg(test)]
pub(crate) use fake::process as test_process;
#[cfg(test)]
mod tests;
