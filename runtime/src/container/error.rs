//! Why something about a container failed: one kind for each step, with its cause and what the reader can do.

use std::io;

use crate::{
    sandbox::{
        Failure, agent::AgentError, cgroup::CgroupError, expose::ExposeError, nics::NicsError,
        oom_score::OomScoreError, resize::ResizeError,
    },
    spec::SpecError,
};

use super::TableError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error(transparent)]
    Table(#[from] TableError),
    /// The guest is not there.
    #[error(transparent)]
    Sandbox(#[from] Failure),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("attach process {pid}")]
    Attach { pid: u32, source: io::Error },
    /// Its caller, or who called for that.
    #[error("the process that would hold the container's streams is gone")]
    Unattached,
    #[error(transparent)]
    Expose(#[from] ExposeError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    OomScore(#[from] OomScoreError),
    #[error(transparent)]
    Resize(#[from] ResizeError),
    #[error(transparent)]
    Nics(#[from] NicsError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A task of the server's panicked.
    #[error("the operation broke off")]
    Broken { source: tokio::task::JoinError },
}

impl ContainerError {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Sandbox(failure) => failure.hint(),
            Self::Spec(error) => error.hint(),
            Self::Table(_)
            | Self::Agent(_)
            | Self::Attach { .. }
            | Self::Unattached
            | Self::Expose(_)
            | Self::Cgroup(_)
            | Self::OomScore(_)
            | Self::Resize(_)
            | Self::Nics(_)
            | Self::Broken { .. } => None,
        }
    }
}
