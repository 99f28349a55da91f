//! The command's side of starting a server: spawn, hand over the plan, and let go once the creation is complete.
//!
//! The socket that clients connect to is bound here, before the server exists, so that nobody has to poll for it. The
//! bootstrap socket is the server's lifeline until `complete`: dropping a `Launch` ends the server.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use bulkhead_protocol::packet::{PacketError, PacketSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    plan::Plan,
    server::{COMMAND, Failed, Order},
};
use crate::{
    config::Artefacts,
    network::Namespace,
    store::{Locked, Process, StateError, names},
};

/// For a server that fails to say why, after its clients have noticed.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("start the sandbox server")]
    Spawn { source: io::Error },
    #[error("hand the plan to the sandbox server")]
    Plan { source: PacketError },
    #[error("tell the sandbox server that the container is complete")]
    Complete { source: PacketError },
}

/// A server that ends with this value, until `complete`.
#[derive(Debug)]
pub struct Launch {
    bootstrap: PacketSocket,
    child: Child,
    complete: bool,
    pub process: Process,
}

impl Launch {
    /// # Errors
    /// When it cannot be started; nothing runs then.
    pub fn start(
        dir: &Locked,
        plan: Plan,
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
        let mut fds = vec![listener.as_fd(), artefacts.kernel.as_fd(), artefacts.initramfs.as_fd()];
        fds.extend(network.map(Namespace::as_fd));
        bootstrap.send(&Order::Plan(Box::new(plan)), &fds).map_err(|source| LaunchError::Plan { source })?;
        let child = Command::new("/proc/self/exe")
            .arg0("bulkhead")
            .args([COMMAND, dir.id().as_str()])
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(spawn)?;
        let process = Process::of(child.id()).map_err(spawn)?;
        Ok(Self { bootstrap, child, complete: false, process })
    }

    /// What the server said before it gave up, if it did: message and hint.
    pub fn last_words(&self) -> Option<(String, Option<String>)> {
        let wait = Timespec { tv_sec: 0, tv_nsec: LAST_WORDS.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.bootstrap, PollFlags::IN)];
        match poll(&mut fds, Some(&wait)) {
            Ok(1) => {
                let (failed, _) = self.bootstrap.receive::<Failed>().ok()?;
                Some((failed.message, failed.hint))
            }
            _ => None,
        }
    }

    /// The container is recorded: the server lives on by itself.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn complete(&mut self) -> Result<(), LaunchError> {
        self.bootstrap.send(&Order::Complete, &[]).map_err(|source| LaunchError::Complete { source })?;
        self.complete = true;
        Ok(())
    }

    /// Takes the exit of a server that has ended, so that no zombie is left while this command lives on.
    pub fn reap(&mut self) {
        let _ = self.child.try_wait();
    }
}

impl Drop for Launch {
    /// A creation that failed: when this returns the server makes nothing more, so its journal is complete.
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
