//! Why a request about containers was not carried out.

use std::io;

use bulkhead_protocol::{
    id::{ContainerId, ExecId},
    limits,
};

use crate::{container::ContainerError, stdio::pending::PendingError};

/// Why a request about containers was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("container {0} does not exist")]
    NoContainer(ContainerId),
    #[error("process {0} does not exist")]
    NoProcess(ExecId),
    #[error("container with given ID already exists: {0}")]
    ContainerExists(ContainerId),
    #[error("process with given ID already exists: {0}")]
    ProcessExists(ExecId),
    #[error("the microVM has {max} containers, and cannot hold more", max = limits::CONTAINERS)]
    TooManyContainers,
    #[error("the container has {max} processes by exec, and cannot hold more", max = limits::EXECS)]
    TooManyProcesses,
    #[error("container not running")]
    NotRunning,
    #[error("the container is being paused or resumed")]
    Freezing,
    #[error("os: process already finished")]
    Finished,
    #[error("cannot start an already running container")]
    StartedAlready,
    #[error("cannot start a container that has stopped")]
    StartAfterExit,
    #[error("cannot exec in a stopped container")]
    ExecAfterExit,
    #[error("cannot delete a container that is running")]
    DeleteRunning,
    #[error("cannot delete a process that is running")]
    DeleteRunningProcess,
    #[error("the process has no terminal")]
    NoTerminal,
    #[error(
        "the streams do not fit the process: with a terminal the tty stream alone is opened, without a terminal it is not"
    )]
    WrongStreams,
    #[error(transparent)]
    Streams(#[from] PendingError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("{step}")]
    Io { step: &'static str, source: io::Error },
}

impl SandboxError {
    pub(super) fn io(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, source }
    }
}
