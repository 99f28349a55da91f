//! Errors as they ride in answers: a code by their kind, the chain of messages, and the hint as a detail.
//!
//!   ContainerError ─▶ Status { code, message, details: [hint] } ─server.sock─▶ CallError { code, message, hint }

use bulkhead_protocol::id::IdError;
use bulkhead_sys::chain;
use ttrpc::{Code, Status, get_status};

use crate::{
    container::{ContainerError, StdioError, TableError},
    sandbox::{agent::AgentError, cgroup::CgroupError},
    store::StateError,
    undo::UndoError,
};

use super::wire::WireError;

/// Type of the detail that holds a hint as text.
const HINT: &str = "bulkhead.dev/hint";

/// Whatever a method refuses or fails with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Stdio(#[from] StdioError),
    #[error(transparent)]
    Spec(#[from] crate::spec::SpecError),
    /// A request that contradicts itself.
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{0} are not supported yet")]
    Unsupported(&'static str),
    #[error("write metrics")]
    Metrics { source: protobuf::Error },
}

impl From<TableError> for ApiError {
    fn from(error: TableError) -> Self {
        Self::Container(error.into())
    }
}

impl ApiError {
    fn code(&self) -> Code {
        match self {
            Self::Container(error) => container(error),
            Self::Id(_) | Self::Wire(_) | Self::Stdio(_) | Self::Spec(_) | Self::Invalid(_) => {
                Code::INVALID_ARGUMENT
            }
            Self::Unsupported(_) => Code::UNIMPLEMENTED,
            Self::Metrics { .. } => Code::INTERNAL,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Container(error) => error.hint(),
            Self::Spec(error) | Self::Wire(WireError::Spec(error)) => error.hint(),
            Self::Id(_)
            | Self::Wire(_)
            | Self::Stdio(_)
            | Self::Invalid(_)
            | Self::Unsupported(_)
            | Self::Metrics { .. } => None,
        }
    }
}

fn container(error: &ContainerError) -> Code {
    match error {
        ContainerError::Table(error) => table(error),
        ContainerError::Agent(error) => agent(error),
        ContainerError::Sandbox(_) => Code::UNAVAILABLE,
        ContainerError::Attach { .. }
        | ContainerError::Request { .. }
        | ContainerError::Id(_)
        | ContainerError::Spec(_)
        | ContainerError::Cgroup(CgroupError::Limit { .. }) => Code::INVALID_ARGUMENT,
        ContainerError::State(StateError::Exists { .. })
        | ContainerError::Undo(UndoError::State(StateError::Exists { .. })) => Code::ALREADY_EXISTS,
        ContainerError::NoCreation { .. } => Code::NOT_FOUND,
        ContainerError::Unattached | ContainerError::NoCaller { .. } | ContainerError::NotMade { .. } => {
            Code::FAILED_PRECONDITION
        }
        ContainerError::State(_)
        | ContainerError::Undo(_)
        | ContainerError::Expose(_)
        | ContainerError::OomScore(_)
        | ContainerError::Resize(_)
        | ContainerError::Nics(_) => Code::ABORTED,
        ContainerError::Cgroup(_) | ContainerError::Broken { .. } => Code::INTERNAL,
    }
}

fn table(error: &TableError) -> Code {
    match error {
        TableError::ContainerExists(_) | TableError::ExecExists(_) => Code::ALREADY_EXISTS,
        TableError::NoContainer(_) | TableError::NoExec(_) | TableError::Deleted | TableError::Finished => {
            Code::NOT_FOUND
        }
        TableError::NotRunning
        | TableError::NotPaused
        | TableError::ExecPaused
        | TableError::NotCreated(_)
        | TableError::NotStopped(_) => Code::FAILED_PRECONDITION,
        TableError::TooMany { .. } => Code::RESOURCE_EXHAUSTED,
    }
}

fn agent(error: &AgentError) -> Code {
    match error {
        AgentError::Refused { code: Code::OK, .. } => Code::UNKNOWN,
        AgentError::Refused { code, .. } => *code,
        AgentError::Broken(_) => Code::UNAVAILABLE,
        AgentError::Silent { .. } => Code::DEADLINE_EXCEEDED,
        AgentError::TooLarge { .. } => Code::INVALID_ARGUMENT,
    }
}

impl From<ApiError> for ttrpc::Error {
    fn from(error: ApiError) -> Self {
        let mut status = get_status(error.code(), chain(&error));
        if let Some(hint) = error.hint() {
            status.details.push(Default::default());
            if let Some(detail) = status.details.last_mut() {
                HINT.clone_into(&mut detail.type_url);
                detail.value = hint.as_bytes().to_vec();
            }
        }
        Self::RpcStatus(status)
    }
}

/// What the reader can do about an error that was answered.
pub(super) fn hint_of(status: &Status) -> Option<String> {
    let hint = status.details.iter().find(|detail| detail.type_url == HINT)?;
    Some(String::from_utf8_lossy(&hint.value).into_owned())
}
