//! The containers of this sandbox by id. Each is one actor task; this table only finds its address.
//!
//!   service ─▶ Sandbox::create ─▶ container::create ─▶ actor
//!           ─▶ Sandbox::send ───────command, reply────▶ actor
//!
//! An id is reserved before anything is made and free again when the container is deleted, or was never made.

pub mod actor;
mod members;

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bulkhead_protocol::{
    container::ContainerSpec,
    id::{ContainerId, ExecId, StreamToken},
    limits,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    container::{self, ContainerError, Layout},
    reaper::Reaper,
    stdio::{
        table::{Table, TableError, Wanted},
        wire,
    },
};
use actor::{Actor, Command};

/// Why a request about containers was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("container {0} does not exist")]
    NoContainer(ContainerId),
    #[error("process {0} does not exist")]
    NoProcess(ExecId),
    #[error("container with given ID already exists: {0}")]
    ContainerExists(ContainerId),
    #[error("process with given ID already exists: {0}")]
    ProcessExists(ExecId),
    #[error("the sandbox has {max} containers already", max = limits::CONTAINERS)]
    TooManyContainers,
    #[error("the container has {max} processes already", max = limits::EXECS)]
    TooManyProcesses,
    #[error("container not running")]
    NotRunning,
    #[error("container is being paused or resumed")]
    Freezing,
    #[error("os: process already finished")]
    Finished,
    #[error("cannot start an already running container")]
    StartedAlready,
    #[error("cannot start a container that has stopped")]
    StartAfterExit,
    #[error("cannot exec in a stopped container")]
    ExecAfterExit,
    #[error("cannot exec in a container that has not been started")]
    ExecBeforeStart,
    #[error("cannot delete a container that is running")]
    DeleteRunning,
    #[error("cannot delete a process that is running")]
    DeleteRunningProcess,
    #[error("the process has no terminal")]
    NoTerminal,
    #[error("a terminal needs its tty stream, and a process without one has none")]
    WrongStreams,
    #[error(transparent)]
    Streams(#[from] TableError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("{step}")]
    Io { step: &'static str, source: io::Error },
}

impl SandboxError {
    fn io(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, source }
    }
}

/// The streams that the host opened for a process.
#[derive(Debug, Clone)]
pub struct StdioRequest {
    pub token: Option<StreamToken>,
    pub wanted: Wanted,
}

/// What a created container answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedInfo {
    pub pid: u32,
    pub rootfs_mounted_ns: u64,
}

/// What every container needs of its sandbox.
#[derive(Debug, Clone)]
pub struct Shared {
    pub reaper: Reaper,
    pub streams: Arc<Table>,
    pub layout: Layout,
}

/// Clones share one table.
#[derive(Debug, Clone)]
pub struct Sandbox {
    containers: Arc<Mutex<HashMap<ContainerId, Slot>>>,
    shared: Shared,
}

#[derive(Debug)]
enum Slot {
    Creating,
    Made(mpsc::Sender<Command>),
}

/// A reserved id. Dropping it frees the id.
#[derive(Debug)]
pub struct Reservation {
    id: ContainerId,
    sandbox: Sandbox,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.sandbox.containers().remove(&self.id);
    }
}

impl Sandbox {
    pub fn new(shared: Shared) -> Self {
        Self { containers: Arc::default(), shared }
    }

    pub fn ids(&self) -> Vec<ContainerId> {
        self.containers().keys().cloned().collect()
    }

    /// Makes a container and its actor. Runs to its end even if the caller gives up waiting.
    pub async fn create(
        &self,
        id: ContainerId,
        spec: ContainerSpec,
        stdio: StdioRequest,
    ) -> Result<CreatedInfo, SandboxError> {
        let reservation = self.reserve(id)?;
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
        let actor = match self.containers().get(id) {
            Some(Slot::Made(actor)) => actor.clone(),
            Some(Slot::Creating) | None => return Err(gone()),
        };
        let (reply, answer) = oneshot::channel();
        actor.send(command(reply)).await.map_err(|_| gone())?;
        // An actor that ends without a reply has deleted its container.
        answer.await.map_err(|_| gone())?
    }

    fn reserve(&self, id: ContainerId) -> Result<Reservation, SandboxError> {
        let mut containers = self.containers();
        if containers.contains_key(&id) {
            return Err(SandboxError::ContainerExists(id));
        }
        if containers.len() >= limits::CONTAINERS {
            return Err(SandboxError::TooManyContainers);
        }
        containers.insert(id.clone(), Slot::Creating);
        drop(containers);
        Ok(Reservation { id, sandbox: self.clone() })
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub type Reply<T> = oneshot::Sender<Result<T, SandboxError>>;

async fn make(
    reservation: Reservation,
    shared: Shared,
    spec: ContainerSpec,
    joined: Option<OwnedFd>,
    stdio: StdioRequest,
) -> Result<CreatedInfo, SandboxError> {
    let id = reservation.id.clone();
    let (child, wiring) = shared.wire(&stdio, spec.process.terminal)?;
    let expecting = shared.reaper.expect_children();
    let created = container::create_in(&shared.layout, &id, &spec, child, joined.as_ref()).await?;
    let info = CreatedInfo { pid: created.pid, rootfs_mounted_ns: created.rootfs_mounted_ns };
    let actor = Actor::adopt(id.clone(), created, wiring, &expecting, shared)?;
    let sandbox = reservation.sandbox.clone();
    let (commands, inbox) = mpsc::channel(16);
    tokio::spawn(actor.run(inbox, reservation));
    sandbox.containers().insert(id, Slot::Made(commands));
    Ok(info)
}

impl Shared {
    /// The child's ends and ours, from the streams that the host has opened.
    fn wire(
        &self,
        stdio: &StdioRequest,
        terminal: bool,
    ) -> Result<(container::ChildStdio, crate::stdio::Wiring), SandboxError> {
        let Wanted { stdin, stdout, stderr, tty } = stdio.wanted;
        if tty != terminal || (terminal && (stdin || stdout || stderr)) {
            return Err(SandboxError::WrongStreams);
        }
        let streams = match &stdio.token {
            Some(token) => self.streams.take(token, stdio.wanted, Instant::now())?,
            None if stdio.wanted == Wanted::default() => crate::stdio::table::Streams::default(),
            None => return Err(SandboxError::WrongStreams),
        };
        wire(streams, terminal).map_err(SandboxError::io("make pipes for stdio"))
    }
}

#[cfg(test)]
mod tests;
