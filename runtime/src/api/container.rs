//! An existing container, as a command finds it: its state directory, and the server of its sandbox when that still runs.
//!
//! A server that is gone means a container that is stopped: a stopped container costs no process, and one whose server
//! was killed has lost its VM with it.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use bulkhead_protocol::{id::ContainerId, limits, sandbox::WaitProcessRequest};
use containerd_shim_protos::api::{DeleteRequest, KillRequest, StateRequest, Status as TaskStatus};
use tokio::time::timeout;
use ttrpc::{Code, context};

use super::client::{self, CallError, Server, bounded, unbounded};
use crate::{
    container::status::Status,
    store::{Process, Record, SandboxDir, SandboxRecord, StateDir, StateError},
    undo::UndoError,
};

/// For an answer about the state: no guest is asked for it.
const STATE: Duration = Duration::from_secs(10);
/// For a server whose socket has just closed to be gone.
const GOING: Duration = Duration::from_secs(2);
/// For a killed container to be known as stopped; longer than the server waits before it ends the VM.
const KILLED: Duration = limits::KILL.saturating_add(Duration::from_secs(5));
/// For a program that has ended in the guest to be known as stopped. With a terminal, its exit waits up to 10 s for who reads
/// the last output.
const ENDED: Duration = Duration::from_secs(15);

/// Why a container does not do what a command asks.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Undo(#[from] UndoError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("wait for {process}")]
    Wait { process: Process, source: io::Error },
    /// Its status does not allow it; the text is what callers look for.
    #[error("{0}")]
    Status(String),
}

impl RequestError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::State(error) => error.hint(),
            Self::Undo(error) => error.hint(),
            Self::Call(error) => error.hint(),
            Self::Wait { .. } | Self::Status(_) => None,
        }
    }
}

#[derive(Debug)]
pub struct Container {
    pub dir: StateDir,
    pub record: Record,
    /// `None` when nothing is left of it.
    pub sandbox: Option<Sandbox>,
}

/// The sandbox of a container, by its directory.
#[derive(Debug)]
pub struct Sandbox {
    pub dir: SandboxDir,
    pub record: SandboxRecord,
}

impl Container {
    /// # Errors
    /// When it does not exist, or is not complete yet.
    pub fn open(root: &Path, id: &ContainerId) -> Result<Self, StateError> {
        let dir = StateDir::open(root, id)?;
        let record = dir.record()?;
        let sandbox = match SandboxDir::open(root, &record.sandbox)? {
            Some(dir) => dir.record()?.map(|record| Sandbox { dir, record }),
            None => None,
        };
        Ok(Self { dir, record, sandbox })
    }

    /// One call to the server.
    ///
    /// # Errors
    /// `Gone` when there is no server any more.
    pub fn call<T>(&self, call: impl AsyncFnOnce(Server) -> Result<T, ttrpc::Error>) -> Result<T, CallError> {
        client::call(self.sandbox.as_ref().map(|sandbox| &sandbox.dir), call)
    }

    /// Whether the microVM of its sandbox is in its cgroup, and ends with it.
    pub fn hosts_sandbox(&self) -> bool {
        let host = self.sandbox.as_ref().and_then(|sandbox| sandbox.record.host_container.as_ref());
        host.is_some_and(|host| host.as_str() == self.record.id)
    }

    /// # Errors
    /// When a server is there and does not answer.
    pub fn status(&self) -> Result<Status, RequestError> {
        let request = StateRequest { id: self.record.id.clone(), ..Default::default() };
        let asked =
            self.call(async |server| server.task.state(context::with_duration(STATE), &request).await);
        match asked {
            Ok(state) => Ok(match state.status.enum_value_or_default() {
                TaskStatus::CREATED => Status::Created,
                TaskStatus::STOPPED => Status::Stopped,
                TaskStatus::UNKNOWN => Status::Creating,
                TaskStatus::PAUSED => Status::Paused,
                TaskStatus::RUNNING | TaskStatus::PAUSING => Status::Running,
            }),
            // Deleted in the server, or never made: nothing runs.
            Err(CallError::Refused { code: Code::NOT_FOUND, .. }) => Ok(Status::Stopped),
            Err(error @ CallError::Gone { .. }) => match &self.sandbox {
                Some(sandbox) if !has_ended(&sandbox.record.server, GOING)? => Err(error.into()),
                Some(_) | None => Ok(Status::Stopped),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The pid that callers see: of the proxy, while it lives; 0 when there is none.
    pub fn pid(&self, status: Status) -> u32 {
        match self.record.proxy {
            Some(proxy) if status != Status::Stopped && proxy.is_alive() => proxy.pid,
            Some(_) | None => 0,
        }
    }

    /// # Errors
    /// `container not running` when it has ended, or is about to.
    pub fn kill(&self, signal: u32, all: bool) -> Result<(), RequestError> {
        self.kill_process("", signal, all)
    }

    /// As `kill`, of an exec; an empty name is the container's init.
    ///
    /// # Errors
    /// As `kill`.
    pub fn kill_process(&self, exec: &str, signal: u32, all: bool) -> Result<(), RequestError> {
        let (id, exec_id) = (self.record.id.clone(), exec.to_owned());
        let request = KillRequest { id, exec_id, signal, all, ..Default::default() };
        match self.call(async |server| server.task.kill(bounded(), &request).await) {
            Ok(_) => Ok(()),
            Err(
                CallError::Gone { .. }
                | CallError::Refused {
                    code: Code::NOT_FOUND | Code::FAILED_PRECONDITION | Code::UNAVAILABLE,
                    ..
                },
            ) => Err(not_running()),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills it, and waits until it is known as stopped; one that has ended by itself is as good. True when it has.
    ///
    /// # Errors
    /// As `status`.
    pub fn end(&self, all: bool) -> Result<bool, RequestError> {
        let _ = self.kill(libc::SIGKILL.unsigned_abs(), all);
        self.wait_stopped(KILLED)
    }

    /// Waits for a program that has ended in the guest, and whose exit is on its way; false, at once, for one that runs. What
    /// a program has written may be read before its exit is known.
    ///
    /// # Errors
    /// As `status`.
    pub fn wait_ended(&self) -> Result<bool, RequestError> {
        // Signal 0 only asks, and it is the guest that answers.
        match self.kill(0, false) {
            Ok(()) => Ok(false),
            Err(RequestError::Status(_)) => self.wait_stopped(ENDED),
            Err(error) => Err(error),
        }
    }

    /// True when it has stopped within this time.
    ///
    /// # Errors
    /// As `status`.
    fn wait_stopped(&self, patience: Duration) -> Result<bool, RequestError> {
        let request = WaitProcessRequest { container_id: self.record.id.clone(), ..Default::default() };
        let waited = self.call(async |server| {
            match timeout(patience, server.sandbox.wait_process(unbounded(), &request)).await {
                Ok(exit) => exit.map(|_| true),
                Err(_) => Ok(false),
            }
        });
        match waited {
            Ok(stopped) => Ok(stopped),
            // The server has ended with it, or does not know it any more.
            Err(_) => Ok(self.status()? == Status::Stopped),
        }
    }

    /// Waits for the processes of a stopped container to end by themselves: what was written last may still be on its
    /// way. The last is the server, which waits for the proxies; it goes on when the sandbox is another container's.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn wait_gone(&self, patience: Duration) -> Result<bool, RequestError> {
        let last = match &self.sandbox {
            Some(sandbox) if self.hosts_sandbox() => Some(sandbox.record.server),
            Some(_) | None => self.record.proxy,
        };
        last.map_or(Ok(true), |process| has_ended(&process, patience))
    }

    /// Takes it out of a sandbox that goes on, by force if it runs; does nothing for one that the sandbox ends with.
    ///
    /// # Errors
    /// When the server does not do it.
    pub fn leave(&self) -> Result<(), RequestError> {
        if self.hosts_sandbox() {
            return Ok(());
        }
        self.end(false)?;
        let request = DeleteRequest { id: self.record.id.clone(), ..Default::default() };
        match self.call(async |server| server.task.delete(bounded(), &request).await) {
            Ok(_) | Err(CallError::Gone { .. } | CallError::Refused { code: Code::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn has_ended(process: &Process, patience: Duration) -> Result<bool, RequestError> {
    let waited = process.wait(Instant::now() + patience);
    waited.map_err(|source| RequestError::Wait { process: *process, source })
}

/// The error of a call about a running container. A server that is gone, or does not know it any more, means that it
/// has stopped; what the server refuses is in its own words.
pub fn refused(error: CallError) -> RequestError {
    match error {
        CallError::Gone { .. } | CallError::Refused { code: Code::NOT_FOUND | Code::UNAVAILABLE, .. } => {
            not_running()
        }
        error @ CallError::Refused { .. } => error.into(),
    }
}

/// The text that callers look for.
pub fn not_running() -> RequestError {
    RequestError::Status("container not running".into())
}
