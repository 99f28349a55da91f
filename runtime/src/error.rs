//! The one error that reaches `main`: a chain of step, object and cause, with a hint where the reader can act.
//!
//! Each module has its own enum; this one holds them and adds what was being done (`create web`). A message never
//! repeats its cause: `chain` joins them once, at the edge.

use std::io;

use bulkhead_protocol::id::IdError;
use bulkhead_sys::chain;

use crate::{
    api::{self, container::RequestError},
    config::ConfigError,
    hooks,
    network::NetworkError,
    proxy,
    sandbox::{cgroup::CgroupError, oom_score::OomScoreError},
    spec::SpecError,
    store::StateError,
    undo::UndoError,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the user asked for, above all else: `create web`.
    #[error("{step}")]
    Step { step: String, source: Box<Error> },
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Undo(UndoError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Creation(#[from] api::CreationError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Proxy(#[from] proxy::LaunchError),
    #[error(transparent)]
    Session(#[from] proxy::SessionError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    OomScore(#[from] OomScoreError),
    #[error(transparent)]
    Hook(#[from] hooks::Failed),
    /// What the sandbox server or a proxy said, in its own words.
    #[error("{message}")]
    Sandbox { message: String, hint: Option<String> },
    /// The container's state does not allow it; the text is what callers look for.
    #[error("{0}")]
    Refused(String),
    /// `what` says step and object: `open log /run/x.log`.
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// A combination of flags, or of flags and spec, that makes no sense.
    #[error("{message}")]
    Usage { message: String, hint: Option<&'static str> },
    /// `doctor` has already printed what is wrong.
    #[error("{failed} of {total} checks failed")]
    Doctor { failed: usize, total: usize },
}

impl Error {
    /// Names what was being done when this happened.
    #[must_use]
    pub fn during(self, step: impl Into<String>) -> Self {
        Self::Step { step: step.into(), source: Box::new(self) }
    }

    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Step { source, .. } => source.hint(),
            Self::State(error) => error.hint(),
            Self::Creation(error) => error.hint(),
            Self::Request(error) => error.hint(),
            Self::Undo(error) => error.hint(),
            Self::Sandbox { hint, .. } => hint.as_deref(),
            Self::Network(error) => error.hint(),
            Self::Spec(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Usage { hint, .. } => *hint,
            Self::Id(_)
            | Self::Cgroup(_)
            | Self::Proxy(_)
            | Self::Session(_)
            | Self::OomScore(_)
            | Self::Hook(_)
            | Self::Refused(_)
            | Self::Io { .. }
            | Self::Doctor { .. } => None,
        }
    }

    /// As `chain`.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// What the state directory says is said of it alone, whoever asked: `delete --force` looks for it.
impl From<UndoError> for Error {
    fn from(error: UndoError) -> Self {
        match error {
            UndoError::State(error) => Self::State(error),
            error => Self::Undo(error),
        }
    }
}

#[cfg(test)]
mod tests;
