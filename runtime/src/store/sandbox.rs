//! What a sandbox keeps: `<root>/@sandboxes/<id>/`, mode 0700. `@` is in no id, so no container is named like that.
//!
//!   lock · journal (server, VMM, redirects) · sandbox.json · server.sock · vsock.sock · server.log · share/ · timeline.json
//!
//! The lock is the server's for its whole life: the command that starts a server takes it, and hands the descriptor over.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::DirBuilderExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use bulkhead_protocol::id::{ContainerId, SandboxId};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{
    Flock, Journal, Process, StateError, names, read_json, remove,
    socket::{self, Door},
};

/// Below the state root.
const DIRECTORY: &str = "@sandboxes";

/// `sandbox.json`: fixed for the sandbox's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRecord {
    pub server: Process,
    /// The container in whose host cgroup the microVM is: engines account for it there, so the sandbox ends with it.
    pub host_container: Option<ContainerId>,
}

/// An existing directory.
#[derive(Debug)]
pub struct SandboxDir {
    id: SandboxId,
    path: PathBuf,
    dir: File,
}

/// A directory that no other process takes or removes while this lives.
#[derive(Debug)]
pub struct LockedSandbox {
    dir: SandboxDir,
    lock: Flock,
}

fn path(root: &Path, id: &SandboxId) -> PathBuf {
    root.join(DIRECTORY).join(id.as_str())
}

impl SandboxDir {
    /// Takes the id for a new sandbox.
    ///
    /// # Errors
    /// `SandboxExists` when there is such a directory, in use or not; or the root cannot be written.
    pub fn claim(root: &Path, id: &SandboxId) -> Result<LockedSandbox, StateError> {
        let parent = root.join(DIRECTORY);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&parent)
            .map_err(|e| StateError::io(format!("make state directory {}", parent.display()), e))?;
        let path = path(root, id);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::SandboxExists { id: id.clone() });
            }
            Err(e) => return Err(StateError::io(format!("make state directory {}", path.display()), e)),
        }
        let locked = Self::open(root, id).and_then(|dir| dir.map_or(Ok(None), Self::try_lock));
        match locked {
            Ok(Some(locked)) => Ok(locked),
            // Somebody took it for a leftover in this moment.
            Ok(None) => Err(StateError::SandboxExists { id: id.clone() }),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// `None` when there is none.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open(root: &Path, id: &SandboxId) -> Result<Option<Self>, StateError> {
        let path = path(root, id);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Self { id: id.clone(), path, dir: dir.into() })),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(e) => Err(StateError::io(format!("open state directory {}", path.display()), e)),
        }
    }

    /// `None` when another process holds the lock, or the directory was removed meanwhile.
    ///
    /// # Errors
    /// When the lock cannot be looked at.
    pub fn try_lock(self) -> Result<Option<LockedSandbox>, StateError> {
        let failed = |e: rustix::io::Errno| {
            StateError::io(format!("lock {}", self.join(names::LOCK).display()), io::Error::from(e))
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match rustix::fs::openat(&self.dir, names::LOCK, flags, Mode::from_raw_mode(0o600)) {
            Ok(lock) => lock,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let Some(lock) = Flock::take(lock.into()).map_err(failed)? else { return Ok(None) };
        // It may be the lock of a directory that its holder has just removed.
        let named = super::same_directory(&self.path, &self.dir);
        Ok(named.then_some(LockedSandbox { dir: self, lock }))
    }

    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn journal(&self) -> Journal {
        Journal::at(self.join(names::JOURNAL))
    }

    /// `None` until the server has written it.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn record(&self) -> Result<Option<SandboxRecord>, StateError> {
        read_json(&self.join(names::SANDBOX))
    }

    /// Listens on a socket of this directory, however long its path is.
    ///
    /// # Errors
    /// As for bind(2).
    pub fn bind(&self, name: &str) -> Result<UnixListener, StateError> {
        socket::bind(self.dir.as_fd(), name)
            .map_err(|e| StateError::io(format!("bind {}", self.join(name).display()), e))
    }

    /// Connects to a socket of this directory, however long its path is.
    ///
    /// # Errors
    /// As for connect(2); `ConnectionRefused` and `NotFound` mean that nobody listens any more.
    pub fn connect(&self, name: &str) -> io::Result<UnixStream> {
        socket::connect(self.dir.as_fd(), name)
    }

    /// The same for later, and without waiting.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn door(&self, name: &'static str) -> Result<Door, StateError> {
        let dir = self.dir.try_clone();
        let dir = dir.map_err(|e| StateError::io(format!("hold {}", self.path.display()), e))?;
        Ok(Door::new(dir.into(), name))
    }
}

impl std::ops::Deref for LockedSandbox {
    type Target = SandboxDir;

    fn deref(&self) -> &SandboxDir {
        &self.dir
    }
}

/// The lock, to be handed over.
impl AsFd for LockedSandbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl LockedSandbox {
    /// In the process that the lock was handed to.
    pub fn received(dir: SandboxDir, lock: OwnedFd) -> Self {
        Self { dir, lock: Flock::received(lock.into()) }
    }

    /// Without the lock: another process has it now.
    pub fn handed_over(self) -> SandboxDir {
        self.lock.handed_over();
        self.dir
    }

    /// Removes the directory with all that is in it; the journal goes with it, so the objects that it names come first.
    ///
    /// # Errors
    /// A file that cannot be removed, or a host directory that is still mounted in it.
    pub fn remove(&self) -> Result<(), StateError> {
        remove::tree(&self.dir.path)
            .map_err(|e| StateError::io(format!("remove state directory {}", self.dir.path.display()), e))
    }
}

#[cfg(test)]
mod tests;
