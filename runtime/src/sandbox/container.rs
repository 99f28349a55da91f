//! An existing container, as a command finds it: its state directory, and its server when that still runs.
//!
//! A server that is gone means a container that is stopped: a stopped container costs no process, and one whose server
//! was killed has lost its VM with it.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use bulkhead_protocol::{id::ContainerId, limits};
use containerd_shim_protos::api::{DeleteRequest, KillRequest, StateRequest, Status as TaskStatus};
use ttrpc::{Code, context};

use super::{
    client::{CallError, Server, bounded},
    status::Status,
};
use crate::{
    error::Error,
    store::{Process, Record, StateDir, StateError, names},
};

/// For an answer about the state: no guest is asked for it.
const STATE: Duration = Duration::from_secs(10);
/// For a server whose socket has just closed to be gone.
const GOING: Duration = Duration::from_secs(2);
/// For a killed container to be known as stopped; longer than the server waits before it ends the VM.
const KILLED: Duration = limits::KILL.saturating_add(Duration::from_secs(5));
/// Between two looks at a container that is to stop.
const POLL: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Container {
    pub dir: StateDir,
    pub record: Record,
}

impl Container {
    /// # Errors
    /// When it does not exist, or is not complete yet.
    pub fn open(root: &Path, id: &ContainerId) -> Result<Self, StateError> {
        let dir = StateDir::open(root, id)?;
        let record = dir.record()?;
        Ok(Self { dir, record })
    }

    /// One call to the server.
    ///
    /// # Errors
    /// `Gone` when there is no server any more.
    pub fn call<T>(&self, call: impl AsyncFnOnce(Server) -> Result<T, ttrpc::Error>) -> Result<T, CallError> {
        let gone = |e: io::Error| CallError::Gone { reason: e.to_string() };
        let stream = self.dir.connect(names::SERVER_SOCKET).map_err(gone)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(gone)?;
        runtime.block_on(async { Ok(call(Server::on(stream).map_err(gone)?).await?) })
    }

    /// # Errors
    /// When a server is there and does not answer.
    pub fn status(&self) -> Result<Status, Error> {
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
            Err(error @ CallError::Gone { .. }) => {
                if self.has_ended(&self.record.server, GOING)? {
                    Ok(Status::Stopped)
                } else {
                    Err(error.into())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The pid that callers see: of the proxy, while it lives.
    pub fn pid(&self, status: Status) -> u32 {
        if status != Status::Stopped && self.record.proxy.is_alive() { self.record.proxy.pid } else { 0 }
    }

    /// # Errors
    /// `container not running` when it has ended, or is about to.
    pub fn kill(&self, signal: u32, all: bool) -> Result<(), Error> {
        let request = KillRequest { id: self.record.id.clone(), signal, all, ..Default::default() };
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
    pub fn end(&self, all: bool) -> Result<bool, Error> {
        let _ = self.kill(libc::SIGKILL.unsigned_abs(), all);
        self.wait_stopped(KILLED)
    }

    /// True when it has stopped before the deadline.
    ///
    /// # Errors
    /// As `status`.
    fn wait_stopped(&self, patience: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + patience;
        loop {
            if self.status()? == Status::Stopped {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for the processes of a stopped container to end by themselves: what was written last may still be on its
    /// way. The last is the server, which waits for the proxy; in the microVM of another container it goes on.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn wait_gone(&self, patience: Duration) -> Result<bool, Error> {
        let last = if self.record.sandbox.is_some() { &self.record.proxy } else { &self.record.server };
        Ok(self.has_ended(last, patience)?)
    }

    /// Takes it out of the microVM of another container, by force if it runs; does nothing for one that has its own.
    ///
    /// # Errors
    /// When the server does not do it.
    pub fn leave(&self) -> Result<(), Error> {
        if self.record.sandbox.is_none() {
            return Ok(());
        }
        self.end(false)?;
        let request = DeleteRequest { id: self.record.id.clone(), ..Default::default() };
        match self.call(async |server| server.task.delete(bounded(), &request).await) {
            Ok(_) | Err(CallError::Gone { .. } | CallError::Refused { code: Code::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn has_ended(&self, process: &Process, patience: Duration) -> Result<bool, StateError> {
        process
            .wait(Instant::now() + patience)
            .map_err(|e| StateError::Io { what: format!("wait for {process}"), source: e })
    }
}

/// The error of a call about a running container. A server that is gone, or does not know it any more, means that it
/// has stopped; what the server refuses is in its own words.
pub fn refused(error: CallError) -> Error {
    match error {
        CallError::Gone { .. } | CallError::Refused { code: Code::NOT_FOUND | Code::UNAVAILABLE, .. } => {
            not_running()
        }
        error @ CallError::Refused { .. } => error.into(),
    }
}

/// The text that callers look for.
pub fn not_running() -> Error {
    Error::Refused("container not running".into())
}
