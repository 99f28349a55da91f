//! What can be asked of a container's actor, and what it answers.

use std::{fs::File, os::fd::OwnedFd, pin::Pin};

use bulkhead_protocol::{
    agent::ContainerStatsResponse,
    container::{ProcessSpec, Resources},
    id::ExecId,
};
use tokio::sync::oneshot;

use super::{error::SandboxError, shared::StdioRequest};
use crate::process::{Exited, SignalNumber, list};

/// Where the answer to one command goes.
pub type Reply<T> = oneshot::Sender<Result<T, SandboxError>>;

/// A wait that is under way.
pub type Waiting = Pin<Box<dyn Future<Output = Option<Exited>> + Send>>;

/// What can be asked of a container. `None` for an exec id means its init.
#[derive(Debug)]
pub enum Command {
    Start {
        reply: Reply<u32>,
    },
    Exec {
        id: ExecId,
        order: ExecOrder,
        reply: Reply<u32>,
    },
    Signal {
        exec: Option<ExecId>,
        signal: SignalNumber,
        reply: Reply<()>,
    },
    SignalAll {
        signal: SignalNumber,
        reply: Reply<()>,
    },
    Wait {
        exec: Option<ExecId>,
        reply: Reply<WaitHandle>,
    },
    Resize {
        exec: Option<ExecId>,
        columns: u16,
        rows: u16,
        reply: Reply<()>,
    },
    /// The container's init, as a pidfd.
    Init {
        reply: Reply<OwnedFd>,
    },
    /// The network namespace of the container's init.
    Network {
        reply: Reply<File>,
    },
    List {
        reply: Reply<Vec<(list::Info, Option<ExecId>)>>,
    },
    Freeze {
        frozen: bool,
        reply: Reply<()>,
    },
    Update {
        resources: Box<Resources>,
        reply: Reply<()>,
    },
    Stats {
        reply: Reply<ContainerStatsResponse>,
    },
    WaitOom {
        seen: u64,
        /// No other end than the container's.
        patient: bool,
        reply: Reply<OomHandle>,
    },
    DeleteProcess {
        exec: ExecId,
        reply: Reply<()>,
    },
    Delete {
        reply: Reply<()>,
    },
}

/// A further process to run.
#[derive(Debug)]
pub struct ExecOrder {
    pub process: Box<ProcessSpec>,
    /// Below the container's cgroup; empty means that itself.
    pub cgroup: String,
    pub stdio: StdioRequest,
}

/// Resolves at an exit; `None` only when the agent is ending.
pub struct WaitHandle(pub Waiting);

impl std::fmt::Debug for WaitHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WaitHandle")
    }
}

/// Resolves at the next out-of-memory kill, at the container's end or in a while, with the number of kills so far.
pub struct OomHandle(pub Pin<Box<dyn Future<Output = u64> + Send>>);

impl std::fmt::Debug for OomHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OomHandle")
    }
}
