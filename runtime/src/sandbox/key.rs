//! The name of one process in a guest.

use bulkhead_protocol::id::{ContainerId, ExecId, IdError};

/// A container's init, or one of its further processes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) container: ContainerId,
    /// `None`: the container's init.
    pub(crate) exec: Option<ExecId>,
}

impl Key {
    /// As it comes in requests: an empty exec id names the init.
    pub(crate) fn parse(container: &str, exec: &str) -> Result<Self, IdError> {
        let exec = if exec.is_empty() { None } else { Some(exec.parse()?) };
        Ok(Self { container: container.parse()?, exec })
    }

    pub(crate) fn init(container: ContainerId) -> Self {
        Self { container, exec: None }
    }

    pub(crate) fn is_init(&self) -> bool {
        self.exec.is_none()
    }

    pub(crate) fn exec_id(&self) -> String {
        self.exec.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}
