//! Why something about a container failed: one kind for each step, with its cause and what the reader can do.

use std::io;

use bulkhead_protocol::id::{ContainerId, IdError};

use crate::{
    sandbox::{
        Failure, agent::AgentError, cgroup::CgroupError, expose::ExposeError, nics::NicsError,
        oom_score::OomScoreError, resize::ResizeError,
    },
    spec::SpecError,
    store::StateError,
    undo::UndoError,
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
    #[error("read the request to create a container")]
    Request { source: io::Error },
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// Undone meanwhile, or never begun.
    #[error("no creation of container {id} is under way")]
    NoCreation { id: ContainerId },
    #[error("the command that creates container {id} is gone")]
    NoCaller { id: ContainerId },
    #[error("container {id} is not made yet")]
    NotMade { id: ContainerId },
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
            Self::State(error) => error.hint(),
            Self::Undo(error) => error.hint(),
            Self::Table(_)
            | Self::Agent(_)
            | Self::Attach { .. }
            | Self::Unattached
            | Self::Expose(_)
            | Self::Cgroup(_)
            | Self::OomScore(_)
            | Self::Resize(_)
            | Self::Nics(_)
            | Self::Request { .. }
            | Self::Id(_)
            | Self::NoCreation { .. }
            | Self::NoCaller { .. }
            | Self::NotMade { .. }
            | Self::Broken { .. } => None,
        }
    }
}
