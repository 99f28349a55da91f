//! Why a server cannot go on; told to the command that started it, with the hint.

use std::{io, path::PathBuf};

use bulkhead_protocol::{id::SandboxId, packet::PacketError};

use crate::{
    container::ContainerError,
    sandbox::{
        cgroup::{CgroupError, bounds::BoundsError},
        oom_score::OomScoreError,
        share::ShareError,
        vmm::VmmError,
    },
    shed::ShedError,
    store::StateError,
    systemd::SystemdError,
    undo::UndoError,
};

#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum ServerError {
    #[error("bootstrap socket")]
    Bootstrap(#[from] PacketError),
    #[error("the plan has other descriptors than agreed")]
    Descriptors,
    #[error(transparent)]
    Shed(#[from] ShedError),
    /// `step` says what of the process could not be set up.
    #[error("{step}")]
    Process { step: &'static str, source: io::Error },
    #[error("open {}", .path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("there is no directory of sandbox {id}")]
    NoDirectory { id: SandboxId },
    #[error(transparent)]
    Undo(#[from] UndoError),
    #[error(transparent)]
    Creation(#[from] ContainerError),
    #[error(transparent)]
    OomScore(#[from] OomScoreError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    #[error(transparent)]
    Unit(#[from] SystemdError),
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error(transparent)]
    Vmm(#[from] VmmError),
    #[error("serve on the sandbox's socket")]
    Serve { source: ttrpc::Error },
}

impl ServerError {
    pub(super) fn process(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Process { step, source }
    }

    /// What the reader can do about it.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::State(error) => error.hint(),
            Self::Undo(error) => error.hint(),
            Self::Creation(error) => error.hint(),
            Self::Share(error) => error.hint(),
            Self::Vmm(_) => Some("`bulkhead doctor` checks whether this machine can run microVMs"),
            Self::Bootstrap(_)
            | Self::Descriptors
            | Self::NoDirectory { .. }
            | Self::Shed(_)
            | Self::Process { .. }
            | Self::Log { .. }
            | Self::OomScore(_)
            | Self::Cgroup(_)
            | Self::Bounds(_)
            | Self::Unit(_)
            | Self::Serve { .. } => None,
        }
    }
}
