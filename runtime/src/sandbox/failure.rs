//! Why a sandbox is of no use any more.

use std::sync::Arc;

use super::{boot::BootError, vmm::Over};

/// Kept by the sandbox, and told to everybody who asks for its guest.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("boot sandbox")]
    Boot { source: Arc<BootError> },
    /// The VM has ended while its guest was up.
    #[error(transparent)]
    Over(Over),
    /// The server has ended the VM, and says why.
    #[error("{0}")]
    Ended(String),
    #[error("the sandbox ends")]
    Ends,
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        Self::Boot { source: Arc::new(error) }
    }
}

impl Failure {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Boot { source } => source.hint(),
            Self::Over(_) | Self::Ended(_) | Self::Ends => None,
        }
    }
}
