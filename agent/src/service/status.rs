//! Which status each failure becomes: the one place where the agent's errors turn into RPC codes (`agent.proto`).
//!
//! The message is the whole chain of causes, for the host shows it to the user word for word.

use std::{error::Error, fmt::Display};

use bulkhead_sys::chain;
use tokio::task::JoinError;
use ttrpc::{Code, error::get_rpc_status};

use crate::{
    binfmt::BinfmtError,
    clock::ClockError,
    container::{ContainerError, PressureError},
    hotplug::HotplugError,
    network::NetworkError,
    sandbox::SandboxError,
    watches::WatchesError,
};

/// An error with a status of its own.
pub(super) trait IntoStatus: Error + Sized {
    fn code(&self) -> Code;

    fn into_status(self) -> ttrpc::Error {
        get_rpc_status(self.code(), chain(&self))
    }
}

pub(super) fn invalid(why: impl Display) -> ttrpc::Error {
    get_rpc_status(Code::INVALID_ARGUMENT, why)
}

pub(super) fn internal(why: impl Display) -> ttrpc::Error {
    get_rpc_status(Code::INTERNAL, why)
}

impl IntoStatus for SandboxError {
    fn code(&self) -> Code {
        match self {
            Self::NoContainer(_) | Self::NoProcess(_) => Code::NOT_FOUND,
            Self::ContainerExists(_) | Self::ProcessExists(_) => Code::ALREADY_EXISTS,
            Self::TooManyContainers
            | Self::TooManyProcesses
            | Self::NotRunning
            | Self::Freezing
            | Self::Finished
            | Self::StartedAlready
            | Self::StartAfterExit
            | Self::ExecAfterExit
            | Self::DeleteRunning
            | Self::DeleteRunningProcess
            | Self::NoTerminal
            | Self::Streams(_) => Code::FAILED_PRECONDITION,
            Self::WrongStreams => Code::INVALID_ARGUMENT,
            Self::Container(error) => error.code(),
            Self::Io { .. } => Code::INTERNAL,
        }
    }
}

impl IntoStatus for ContainerError {
    fn code(&self) -> Code {
        Code::ABORTED
    }
}

impl IntoStatus for PressureError {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}

impl IntoStatus for ClockError {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}

impl IntoStatus for BinfmtError {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}

impl IntoStatus for HotplugError {
    fn code(&self) -> Code {
        match self {
            Self::NoSlot { .. } | Self::Cpus { .. } => Code::INVALID_ARGUMENT,
            Self::NotBound { .. } | Self::NoDisk { .. } => Code::FAILED_PRECONDITION,
            Self::Slot { .. } | Self::Unbind { .. } | Self::CpuList { .. } | Self::Cpu { .. } => {
                Code::INTERNAL
            }
        }
    }
}

impl IntoStatus for NetworkError {
    fn code(&self) -> Code {
        match self {
            Self::Settings(_) | Self::Family(_) => Code::INVALID_ARGUMENT,
            Self::NoDevice(_) | Self::NoName(_) => Code::NOT_FOUND,
            Self::Socket(_) | Self::Enter(_) | Self::Late | Self::List(_) | Self::Step { .. } => {
                Code::INTERNAL
            }
        }
    }
}

impl IntoStatus for WatchesError {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}

impl IntoStatus for JoinError {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}
