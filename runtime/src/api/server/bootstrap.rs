//! The socket between the command that starts a server and that server: its standard input.
//!
//!   command ─plan + descriptors─▶ server          server ─Serving, or Failed─▶ command
//!
//! That is all: from then on the command asks on `server.sock`, as everybody does.

use std::{fs::File, io, os::fd::OwnedFd};

use bulkhead_protocol::packet::PacketSocket;
use serde::{Deserialize, Serialize};

use super::ServerError;

/// Server to command, once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::api) enum Report {
    /// The id of the first container is taken, the VMM runs, and calls are answered.
    Serving,
    /// It cannot go on.
    Failed { message: String, hint: Option<String> },
}

/// In this order beside the plan.
pub(super) struct Descriptors {
    pub(super) listener: OwnedFd,
    /// Of the sandbox's directory.
    pub(super) lock: OwnedFd,
    /// A file with the `CreationRequest` of the first container.
    pub(super) request: OwnedFd,
    pub(super) kernel: OwnedFd,
    pub(super) initramfs: OwnedFd,
    /// With `SandboxPlan::network`.
    pub(super) network: Option<OwnedFd>,
}

impl Descriptors {
    pub(super) fn agreed(mut fds: Vec<OwnedFd>, network: bool) -> Result<Self, ServerError> {
        let network = if network { fds.pop() } else { None };
        let fds: [OwnedFd; 5] = fds.try_into().map_err(|_| ServerError::Descriptors)?;
        let [listener, lock, request, kernel, initramfs] = fds;
        Ok(Self { listener, lock, request, kernel, initramfs, network })
    }
}

/// The socket comes as standard input, which then becomes /dev/null.
pub(super) fn take() -> io::Result<PacketSocket> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket.into())
}
