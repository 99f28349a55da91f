//! The creation of one container, as a front end drives it: completed, or aborted. If the front end dies, the server
//! sees it and undoes all.
//!
//!   launch: a sandbox of its own      join: one that is there        both take the id: the server claims it
//!     ─▶ (the front end attaches something, which has the server make the container) ─▶ hooks ─▶ commit
//!
//! The hooks are run here and not in the server, for they have the environment of who creates the container: its namespaces,
//! cgroup, limits, keyring and capabilities, and they die with it.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use bulkhead_protocol::sandbox::{BeginCreateRequest, CreationRequest as CreationRequestId};
use bulkhead_sys::chain;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    client::{CallError, bounded, call},
    launch::{Launch, LaunchError},
};
use crate::{
    config::Artefacts,
    container::CreationRequest,
    hooks::{self, Subject},
    log::Log,
    network::Namespace,
    sandbox::SandboxPlan,
    store::{Record, SandboxDir, StateDir, StateError},
    undo::{self, UndoError},
};

#[derive(Debug, thiserror::Error)]
pub enum CreationError {
    #[error("write the request to create the container")]
    Request { source: io::Error },
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Hook(#[from] hooks::Failed),
}

impl CreationError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Launch(error) => error.hint(),
            Self::Call(error) => error.hint(),
            Self::State(error) => error.hint(),
            Self::Request { .. } | Self::Hook(_) => None,
        }
    }
}

/// A container that is being created for this process.
#[derive(Debug)]
pub struct Creation {
    root: PathBuf,
    record: Record,
    sandbox: Home,
    /// Hooks have begun to run, so those of the end follow whatever happens.
    begun: bool,
}

#[derive(Debug)]
enum Home {
    Launched(Box<Launch>),
    Joined(SandboxDir),
}

impl Creation {
    /// In a sandbox of its own.
    ///
    /// # Errors
    /// When the id is taken or the sandbox cannot be started; nothing is left then.
    pub fn launch(
        plan: &SandboxPlan,
        request: &CreationRequest,
        artefacts: &Artefacts,
        network: Option<&Namespace>,
    ) -> Result<Self, CreationError> {
        // Before there is a server that would find it out.
        StateDir::refuse_taken(&plan.root, &plan.host_container)?;
        let launch = Launch::start(plan, &file_of(request)?, artefacts, network)?;
        Ok(Self::of(&plan.root, request, Home::Launched(Box::new(launch))))
    }

    /// In a sandbox that is there.
    ///
    /// # Errors
    /// When the id is taken, or the sandbox is gone; nothing is left then.
    pub fn join(root: &Path, sandbox: SandboxDir, request: &CreationRequest) -> Result<Self, CreationError> {
        let file = file_of(request)?;
        let begin = BeginCreateRequest {
            pid: request.caller.pid,
            start_ticks: request.caller.start_ticks,
            fd: file.as_raw_fd().unsigned_abs(),
            ..Default::default()
        };
        call(Some(&sandbox), async |server| server.sandbox.begin_create(bounded(), &begin).await)?;
        Ok(Self::of(root, request, Home::Joined(sandbox)))
    }

    fn of(root: &Path, request: &CreationRequest, sandbox: Home) -> Self {
        Self { root: root.to_owned(), record: request.record.clone(), sandbox, begun: false }
    }

    fn dir(&self) -> &SandboxDir {
        match &self.sandbox {
            Home::Launched(launch) => &launch.dir,
            Home::Joined(dir) => dir,
        }
    }

    fn id(&self) -> CreationRequestId {
        CreationRequestId { container_id: self.record.id.clone(), ..Default::default() }
    }

    /// Runs the hooks of a container that is made. `pid` is what it is attached to.
    ///
    /// # Errors
    /// The first hook that fails.
    pub fn run_hooks(&mut self, pid: u32) -> Result<(), CreationError> {
        self.begun = true;
        Ok(Subject::from(&self.record).create(pid)?)
    }

    /// The container is complete: others find it from now on. What is not quite as the bundle asks for.
    ///
    /// # Errors
    /// When the server cannot record it.
    pub fn commit(&self) -> Result<Vec<String>, CreationError> {
        let id = self.id();
        let committed =
            call(Some(self.dir()), async |server| server.sandbox.commit_create(bounded(), &id).await)?;
        Ok(committed.warnings)
    }

    /// The server that was started for it, to be reaped.
    pub fn launched(&mut self) -> Option<&mut Launch> {
        match &mut self.sandbox {
            Home::Launched(launch) => Some(launch),
            Home::Joined(_) => None,
        }
    }

    /// Undoes all, and runs the hooks that follow an end: those before may have made something.
    pub fn abort(&mut self, log: &Log) {
        let id = self.id();
        let aborted =
            call(Some(self.dir()), async |server| server.sandbox.abort_create(bounded(), &id).await);
        if let Home::Launched(launch) = &mut self.sandbox {
            launch.end();
        } else if let Err(error) = aborted {
            log.debug(&format!("undo the creation of {}: {}", self.record.id, chain(&error)));
        }
        // Of a server that was killed meanwhile.
        if let Err(error) = self.undo_cut_off() {
            log.warn(&format!("undo the creation of {}: {}", self.record.id, chain(&error)));
        }
        if self.begun {
            Subject::from(&self.record).poststop(log);
        }
    }
}

impl Creation {
    fn undo_cut_off(&self) -> Result<(), UndoError> {
        if let Ok(id) = self.record.id.parse() {
            undo::cut_off(&self.root, &id)?;
        }
        if matches!(self.sandbox, Home::Launched(_)) {
            undo::unused_sandbox(&self.root, &self.record.sandbox)?;
        }
        Ok(())
    }
}

/// As JSON in memory: a server reads it through /proc, or gets the descriptor.
fn file_of(request: &CreationRequest) -> Result<File, CreationError> {
    let failed = |source| CreationError::Request { source };
    let mut file: File =
        memfd_create("creation", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?.into();
    let json = serde_json::to_vec(request).map_err(|e| failed(e.into()))?;
    file.write_all(&json).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}
