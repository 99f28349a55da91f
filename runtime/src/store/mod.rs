//! What survives a command: `<root>/<id>/`, one directory per container, mode 0700; and one per sandbox (`sandbox`).
//!
//!   create ─claim─▶ lock · journal · creating.json · config.json ─▶ state.json
//!   start, kill, exec, state ─open─▶ state.json, the sandbox's server.sock          delete ─lock, `crate::undo`─▶ gone
//!
//! `state.json` is written once, atomically, when the container is made: without it a container is being created, or
//! its creation was cut off. Whoever holds the lock decides which. Every object outside this directory has a line in
//! `journal` before it is made, so that the directory alone is enough to remove all of it. This module keeps the names of
//! such objects and touches none of them: it knows no network and no systemd.

mod flock;
mod journal;
mod objects;
mod process;
mod record;
mod remove;
mod sandbox;
mod socket;

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bulkhead_protocol::id::{ContainerId, SandboxId};
use rustix::fs::{Mode, OFlags};

pub use flock::Flock;
pub use journal::{Entry, Journal, Role};
pub use objects::{NamespaceId, Scope};
pub use process::{Held, Process};
pub use record::{ExitRecord, Record, read_json, write_atomically, write_json};
pub use sandbox::{LockedSandbox, SandboxDir, SandboxRecord};
pub use socket::Door;

/// For another command to finish with the container.
const LOCK_WAIT: Duration = Duration::from_secs(90);
/// Between two looks at a lock that another command holds: flock has no deadline of its own.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Directories of one name that may vanish under a claim before it gives up.
const CLAIM_TRIES: u32 = 8;

/// Names in a state directory.
pub mod names {
    pub const LOCK: &str = "lock";
    pub const JOURNAL: &str = "journal";
    pub const CREATING: &str = "creating.json";
    pub const STATE: &str = "state.json";
    pub const CONFIG: &str = "config.json";
    pub const EXIT: &str = "exit.json";
    // Of a sandbox.
    pub const SANDBOX: &str = "sandbox.json";
    pub const TIMELINE: &str = "timeline.json";
    pub const SERVER_SOCKET: &str = "server.sock";
    pub const SERVER_LOG: &str = "server.log";
    pub const VSOCK_SOCKET: &str = "vsock.sock";
    pub const SHARE: &str = "share";
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("container with id exists: {id}")]
    Exists { id: ContainerId },
    #[error("sandbox with id exists: {id}")]
    SandboxExists { id: SandboxId },
    #[error("container does not exist: {id}")]
    Missing { id: ContainerId },
    #[error("container {id} is being created")]
    Creating { id: ContainerId },
    /// Nobody is at work on it, and it was never finished: `crate::undo::claim` removes what is left.
    #[error("the creation of container {id} was cut off")]
    CutOff { id: ContainerId },
    #[error("another command still works on container {id} after {waited:?}")]
    Busy { id: ContainerId, waited: Duration },
    /// `what` says step and object.
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("{} is damaged", .path.display())]
    Corrupt { path: PathBuf, source: serde_json::Error },
}

impl StateError {
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exists { .. } | Self::SandboxExists { .. } => {
                Some("delete the container first, or choose another id")
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => {
                    Some("free space on the filesystem of --root, or choose another --root")
                }
                io::ErrorKind::ReadOnlyFilesystem => Some("choose a --root that can be written"),
                _ => None,
            },
            Self::Creating { .. } | Self::CutOff { .. } | Self::Corrupt { .. } => {
                Some("`bulkhead delete --force` removes the container")
            }
            Self::Missing { .. } | Self::Busy { .. } => None,
        }
    }
}

/// An existing state directory.
#[derive(Debug)]
pub struct StateDir {
    id: ContainerId,
    path: PathBuf,
    dir: File,
}

/// A state directory that no other command changes while this lives.
#[derive(Debug)]
pub struct Locked {
    dir: StateDir,
    _lock: Flock,
}

/// How far a container has come, by its directory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A command is at work on it, or one was cut off.
    Creating,
    Created,
}

impl StateDir {
    /// Takes the id for a new container.
    ///
    /// # Errors
    /// `Exists` when the id is taken, `CutOff` when a creation has left its directory behind; or the root cannot be written.
    pub fn claim(root: &Path, id: &ContainerId) -> Result<Locked, StateError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| StateError::io(format!("make state root {}", root.display()), e))?;
        let path = root.join(id.as_str());
        // A directory that another command deletes meanwhile is made anew.
        for _ in 0..CLAIM_TRIES {
            let made = match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => true,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
                Err(e) => return Err(StateError::io(format!("make state directory {}", path.display()), e)),
            };
            let locked = Self::open(root, id).and_then(|dir| match dir.try_lock() {
                Ok(Some(locked)) => Ok(locked),
                Ok(None) => Err(StateError::Exists { id: id.clone() }),
                Err(error) => {
                    if made {
                        let _ = fs::remove_dir(&path);
                    }
                    Err(error)
                }
            });
            match locked {
                Ok(locked) if locked.stage() == Stage::Created => {
                    return Err(StateError::Exists { id: id.clone() });
                }
                Ok(locked) if made => return Ok(locked),
                Ok(_) => return Err(StateError::CutOff { id: id.clone() }),
                Err(StateError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StateError::Exists { id: id.clone() })
    }

    /// # Errors
    /// `Missing`, or the directory cannot be opened.
    pub fn open(root: &Path, id: &ContainerId) -> Result<Self, StateError> {
        let path = root.join(id.as_str());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Self { id: id.clone(), path, dir: dir.into() }),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                Err(StateError::Missing { id: id.clone() })
            }
            Err(e) => Err(StateError::io(format!("open state directory {}", path.display()), e)),
        }
    }

    /// The ids under `root`, sorted. A root that does not exist holds none.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn list(root: &Path) -> Result<Vec<ContainerId>, StateError> {
        let failed = |e| StateError::io(format!("read state root {}", root.display()), e);
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// The records of all containers under `root` that are made, with an error for each that cannot be read.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn records(root: &Path) -> Result<Vec<Result<Record, StateError>>, StateError> {
        let mut records = Vec::new();
        for id in Self::list(root)? {
            match Self::open(root, &id).and_then(|dir| dir.record()) {
                // Deleted meanwhile, or not complete yet.
                Err(StateError::Missing { .. } | StateError::Creating { .. }) => {}
                record => records.push(record),
            }
        }
        Ok(records)
    }

    /// Says early that an id is taken; `claim` decides it.
    ///
    /// # Errors
    /// `Exists` when there is a container of this name.
    pub fn refuse_taken(root: &Path, id: &ContainerId) -> Result<(), StateError> {
        match Self::open(root, id) {
            Ok(dir) if dir.stage() == Stage::Created => Err(StateError::Exists { id: id.clone() }),
            Ok(_) | Err(StateError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for other commands to finish with the container.
    ///
    /// # Errors
    /// `Missing` when it was deleted meanwhile, `Busy` at the deadline.
    pub fn lock(self) -> Result<Locked, StateError> {
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            if let Some(lock) = self.take_lock()? {
                return self.locked_by(lock);
            }
            if Instant::now() >= deadline {
                return Err(StateError::Busy { id: self.id, waited: LOCK_WAIT });
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// `None` when another command holds the lock.
    ///
    /// # Errors
    /// `Missing` when the container was deleted meanwhile.
    pub fn try_lock(self) -> Result<Option<Locked>, StateError> {
        match self.take_lock()? {
            Some(lock) => self.locked_by(lock).map(Some),
            None => Ok(None),
        }
    }

    fn take_lock(&self) -> Result<Option<Flock>, StateError> {
        let path = self.join(names::LOCK);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => StateError::Missing { id: self.id.clone() },
            _ => StateError::io(format!("open lock {}", path.display()), e),
        };
        // Through the directory that is open, not by path: the path may name another one by now.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&self.dir, names::LOCK, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| failed(errno.into()))?;
        Flock::take(lock.into()).map_err(|e| StateError::io(format!("lock {}", path.display()), e))
    }

    /// The lock counts only if the directory is still the one that the id names: a waiter may get the lock of a
    /// directory that its holder has just removed.
    fn locked_by(self, lock: Flock) -> Result<Locked, StateError> {
        if same_directory(&self.path, &self.dir) {
            Ok(Locked { dir: self, _lock: lock })
        } else {
            Err(StateError::Missing { id: self.id })
        }
    }

    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn stage(&self) -> Stage {
        if self.join(names::STATE).exists() { Stage::Created } else { Stage::Creating }
    }

    pub fn journal(&self) -> Journal {
        Journal::at(self.join(names::JOURNAL))
    }

    /// What `create` has written.
    ///
    /// # Errors
    /// `Creating` when it has not written it yet.
    pub fn record(&self) -> Result<Record, StateError> {
        match read_json(&self.join(names::STATE))? {
            Some(record) => Ok(record),
            None if self.path.exists() => Err(StateError::Creating { id: self.id.clone() }),
            None => Err(StateError::Missing { id: self.id.clone() }),
        }
    }

    /// What is known of a container while it is being created; `None` when nobody has said it yet.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn creating(&self) -> Result<Option<Record>, StateError> {
        read_json(&self.join(names::CREATING))
    }

    /// The exit of the container's init, once the server has written it.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn exit(&self) -> Result<Option<ExitRecord>, StateError> {
        read_json(&self.join(names::EXIT))
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
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl std::ops::Deref for Locked {
    type Target = StateDir;

    fn deref(&self) -> &StateDir {
        &self.dir
    }
}

impl Locked {
    /// Removes the directory with all that is in it; the journal goes with it, so the objects that it names come first.
    ///
    /// # Errors
    /// A file that cannot be removed, or a host directory that is still mounted in it.
    pub fn remove(&self) -> Result<(), StateError> {
        remove::tree(&self.dir.path)
            .map_err(|e| StateError::io(format!("remove state directory {}", self.dir.path.display()), e))
    }

    /// Lets other commands at the container.
    pub fn unlock(self) -> StateDir {
        self.dir
    }
}

/// Whether the path still names the directory that is open.
fn same_directory(path: &Path, dir: &File) -> bool {
    match (fs::symlink_metadata(path), dir.metadata()) {
        (Ok(now), Ok(then)) => (now.dev(), now.ino()) == (then.dev(), then.ino()),
        _ => false,
    }
}

/// Connects to a unix socket by any path, longer than `sun_path` as well.
///
/// # Errors
/// As for connect(2).
pub fn connect_path(path: &Path) -> io::Result<UnixStream> {
    socket::connect_path(path)
}

#[cfg(test)]
mod tests;
