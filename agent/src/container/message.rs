//! What the agent and container-init say to each other over their socket, one packet each.
//!
//!   agent ─ Order + plan, stdio, cgroup [, target] ─▶ launcher        launcher ─ Forked + pidfd ─▶ agent
//!   process ─ Warning* Master* Parked | Failed ─▶ agent               agent ─ Go ─▶ process ─ exec: end of file
//!
//! The socket is close-on-exec, so an exec that succeeded is the end of file, and one that failed is a `Failed`.
//! A plan may be larger than a packet: it comes as a memory file.

use std::{
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{
    error::{ContainerError, During},
    plan::Plan,
};

/// Bytes of a plan: the specification with its steps, which repeat little of it.
const PLAN_MAX: u64 = 4 * bulkhead_protocol::limits::CONTAINER_SPEC as u64;

/// The first packet. Its descriptors: plan, stdin, stdout, stderr, cgroup, and for a join the target's pidfd.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) join: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// With the pidfd. Always the first.
    Forked { pid: u32 },
    /// Something was left out that the specification allows to leave out.
    Warning(String),
    /// With the master of the terminal.
    Master,
    /// Ready to exec.
    Parked,
    /// The last one.
    Failed(ContainerError),
}

/// The packet that lets the process exec.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Go;

pub(super) fn write_plan(plan: &Plan) -> Result<OwnedFd, ContainerError> {
    const STEP: &str = "write";
    let bytes = serde_json::to_vec(plan).map_err(std::io::Error::from).during(STEP, "plan")?;
    let file = memfd_create("plan", MemfdFlags::CLOEXEC).during(STEP, "plan")?;
    let mut file = std::fs::File::from(file);
    file.write_all(&bytes).during(STEP, "plan")?;
    file.rewind().during(STEP, "plan")?;
    Ok(file.into())
}

pub(super) fn read_plan(file: OwnedFd) -> Result<Plan, ContainerError> {
    const STEP: &str = "read";
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(PLAN_MAX).read_to_end(&mut bytes).during(STEP, "plan")?;
    serde_json::from_slice(&bytes).map_err(std::io::Error::from).during(STEP, "plan")
}

#[cfg(test)]
mod tests;
