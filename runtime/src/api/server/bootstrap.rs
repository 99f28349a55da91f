//! The socket between the command that starts a server and that server: its standard input.
//!
//!   command ─Plan + descriptors─▶ server          server ─Failed─▶ command: it cannot go on
//!   command ─Complete─▶ server                    the socket closes: the command is gone

use std::{fs::File, io, os::fd::OwnedFd};

use bulkhead_protocol::packet::PacketSocket;
use serde::{Deserialize, Serialize};

use super::ServerError;
use crate::sandbox::SandboxPlan;

/// Command to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::api) enum Order {
    /// Comes first, with the descriptors of `Descriptors`.
    Plan(Box<SandboxPlan>),
    /// The container is made and recorded: the server lives on without the command.
    Complete,
}

/// Server to command: it cannot go on.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::api) struct Failed {
    pub(in crate::api) message: String,
    pub(in crate::api) hint: Option<String>,
}

/// In this order beside the plan.
pub(super) struct Descriptors {
    pub(super) listener: OwnedFd,
    pub(super) kernel: OwnedFd,
    pub(super) initramfs: OwnedFd,
    /// With `SandboxPlan::network`.
    pub(super) network: Option<OwnedFd>,
}

impl Descriptors {
    pub(super) fn agreed(mut fds: Vec<OwnedFd>, network: bool) -> Result<Self, ServerError> {
        let network = if network { fds.pop() } else { None };
        let fds: [OwnedFd; 3] = fds.try_into().map_err(|_| ServerError::Descriptors)?;
        let [listener, kernel, initramfs] = fds;
        Ok(Self { listener, kernel, initramfs, network })
    }
}

/// The socket comes as standard input, which then becomes /dev/null.
pub(super) fn take() -> io::Result<PacketSocket> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket.into())
}
