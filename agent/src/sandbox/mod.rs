//! The containers of this sandbox. Each is one actor task; `Registry` only finds its address.
//!
//!   service ─▶ Sandbox::create ─▶ container::create ─▶ actor
//!           ─▶ Sandbox::send ───────command, reply────▶ actor

mod actor;
pub mod command;
mod error;
mod members;
mod registry;
mod shared;

use std::{io, os::fd::OwnedFd};

use bulkhead_protocol::{container::ContainerSpec, id::ContainerId};
use tokio::sync::{mpsc, oneshot};

use self::{
    actor::Actor,
    command::{Command, Reply},
    registry::{Registry, Reservation},
};
pub use self::{
    error::SandboxError,
    shared::{Shared, StdioRequest},
};
use crate::container;

/// Clones share one table.
#[derive(Debug, Clone)]
pub struct Sandbox {
    registry: Registry,
    shared: Shared,
}

impl Sandbox {
    pub fn new(shared: Shared) -> Self {
        Self { registry: Registry::default(), shared }
    }

    /// Makes a container and its actor, and answers the init's pid. Runs to its end even if the caller gives up waiting.
    pub async fn create(
        &self,
        id: ContainerId,
        spec: ContainerSpec,
        stdio: StdioRequest,
    ) -> Result<u32, SandboxError> {
        let reservation = self.registry.reserve(id)?;
        let joined = match &spec.join {
            Some(other) => Some(self.send(other, |reply| Command::Init { reply }).await?),
            None => None,
        };
        let shared = self.shared.clone();
        let made = tokio::spawn(make(reservation, shared, spec, joined, stdio));
        made.await.unwrap_or_else(|error| {
            Err(SandboxError::Io { step: "create container", source: io::Error::other(error) })
        })
    }

    /// Sends one command to a container's actor and waits for the reply.
    pub async fn send<T>(
        &self,
        id: &ContainerId,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, SandboxError> {
        let gone = || SandboxError::NoContainer(id.clone());
        let actor = self.registry.actor(id)?;
        let (reply, answer) = oneshot::channel();
        actor.send(command(reply)).await.map_err(|_| gone())?;
        // An actor that ends without a reply has deleted its container.
        answer.await.map_err(|_| gone())?
    }
}

async fn make(
    reservation: Reservation,
    shared: Shared,
    spec: ContainerSpec,
    joined: Option<OwnedFd>,
    stdio: StdioRequest,
) -> Result<u32, SandboxError> {
    let id = reservation.id().clone();
    let (child, wiring) = shared.wire(&stdio, spec.process.terminal)?;
    let expecting = shared.reaper.expect_children();
    let created = container::create(&shared.layout, &id, &spec, child, joined.as_ref()).await?;
    let pid = created.pid;
    let actor = Actor::adopt(id, created, wiring, &expecting, shared)?;
    let (commands, inbox) = mpsc::channel(16);
    reservation.announce(commands);
    tokio::spawn(actor.run(inbox, reservation));
    Ok(pid)
}
