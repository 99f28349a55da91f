//! Starts a sandbox server: spawn it, hand over the plan, and hear that it serves.
//!
//! The socket that clients connect to is bound here, before the server exists, so that nobody has to poll for it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    limits,
    packet::{PacketError, PacketSocket},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::server::{COMMAND, Report};
use crate::{
    config::Artefacts,
    network::Namespace,
    sandbox::SandboxPlan,
    store::{LockedSandbox, Process, SandboxDir, StateError, names},
    undo::{self, UndoError},
};

/// For a server to serve: it makes a cgroup and starts the VMM, which boots later.
const SERVING: Duration = limits::BOOT;
/// For a server whose creation was aborted to end: it stops the VM, and removes what was made.
const ENDED: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Undo(#[from] UndoError),
    #[error("start the sandbox server")]
    Spawn { source: io::Error },
    #[error("hand the plan to the sandbox server")]
    Plan { source: PacketError },
    #[error("hear from the sandbox server")]
    Report { source: PacketError },
    /// The server's own words.
    #[error("{message}")]
    Failed { message: String, hint: Option<String> },
    #[error("the sandbox server ended without a word")]
    Died,
    #[error("the sandbox server was not ready after {waited:?}")]
    Silent { waited: Duration },
}

impl LaunchError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::State(error) => error.hint(),
            Self::Undo(error) => error.hint(),
            Self::Failed { hint, .. } => hint.as_deref(),
            Self::Spawn { .. }
            | Self::Plan { .. }
            | Self::Report { .. }
            | Self::Died
            | Self::Silent { .. } => None,
        }
    }
}

/// A server that this process has started. It lives by itself.
#[derive(Debug)]
pub struct Launch {
    child: Child,
    pub dir: SandboxDir,
}

impl Launch {
    /// Returns when calls are answered. `request` has the `CreationRequest` of the first container.
    ///
    /// # Errors
    /// When it cannot be started, or has ended again; nothing is left then.
    pub fn start(
        plan: &SandboxPlan,
        request: &File,
        artefacts: &Artefacts,
        network: Option<&Namespace>,
    ) -> Result<Self, LaunchError> {
        let dir = undo::claim_sandbox(&plan.root, &plan.id)?;
        let started = Self::start_in(dir, plan, request, artefacts, network);
        if started.is_err() {
            // Of a server that could not clean up itself. The error that led here says more than one of this.
            let _ = undo::unused_sandbox(&plan.root, &plan.id);
        }
        started
    }

    fn start_in(
        dir: LockedSandbox,
        plan: &SandboxPlan,
        request: &File,
        artefacts: &Artefacts,
        network: Option<&Namespace>,
    ) -> Result<Self, LaunchError> {
        let spawn = |source| LaunchError::Spawn { source };
        let listener: OwnedFd = dir.bind(names::SERVER_SOCKET)?.into();
        let (bootstrap, theirs) = PacketSocket::pair().map_err(spawn)?;
        let path = dir.join(names::SERVER_LOG);
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| StateError::io(format!("open {}", path.display()), e))?;
        // Sent before there is a server: it finds the plan even if this command dies in the next moment, and cleans up.
        let mut fds = vec![listener.as_fd(), dir.as_fd(), request.as_fd()];
        fds.extend([artefacts.kernel.as_fd(), artefacts.initramfs.as_fd()]);
        fds.extend(network.map(Namespace::as_fd));
        bootstrap.send(plan, &fds).map_err(|source| LaunchError::Plan { source })?;
        let child = Command::new("/proc/self/exe")
            .arg0("bulkhead")
            .args([COMMAND, plan.id.as_str()])
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(spawn)?;
        let mut launch = Self { child, dir: dir.handed_over() };
        match report(&bootstrap) {
            Ok(()) => Ok(launch),
            Err(error) => {
                launch.end();
                Err(error)
            }
        }
    }

    /// Waits for a server that is to end; one that does not is killed.
    pub fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // It is not reaped, so the pid is still its own.
        let ended = Process::of(self.child.id()).and_then(|server| server.wait(Instant::now() + ENDED));
        if !matches!(ended, Ok(true)) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    /// Takes the exit of a server that has ended, so that no zombie is left while this command lives on.
    pub fn reap(&mut self) {
        let _ = self.child.try_wait();
    }
}

fn report(bootstrap: &PacketSocket) -> Result<(), LaunchError> {
    let wait = Timespec { tv_sec: i64::try_from(SERVING.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut fds = [PollFd::new(bootstrap, PollFlags::IN)];
    match poll(&mut fds, Some(&wait)) {
        Ok(0) => return Err(LaunchError::Silent { waited: SERVING }),
        Ok(_) => {}
        Err(errno) => {
            let source = PacketError::Receive { source: errno.into() };
            return Err(LaunchError::Report { source });
        }
    }
    match bootstrap.receive::<Report>() {
        Ok((Report::Serving, _)) => Ok(()),
        Ok((Report::Failed { message, hint }, _)) => Err(LaunchError::Failed { message, hint }),
        Err(PacketError::Closed) => Err(LaunchError::Died),
        Err(source) => Err(LaunchError::Report { source }),
    }
}
