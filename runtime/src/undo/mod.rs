//! Removes everything that a container has left on the host, from its journal alone.
//!
//!   processes: SIGKILL to all, then wait for each ─▶ redirects ─▶ cgroups, newest first ─▶ the state directory
//!
//! It is safe to repeat at any point: the directory goes last, and an object that is gone is no error. Mounts need no
//! undoing: they live in the mount namespace of the server and end with it.
//!
//! This is a module above `store`, `network` and `systemd`: the journal only names objects, and each kind of object is
//! removed by the module that makes it.

mod cgroups;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bulkhead_protocol::id::ContainerId;

use crate::{
    network::{self, NetworkError},
    store::{Entry, Locked, Process, Stage, StateDir, StateError},
};

pub use cgroups::{LeftoverError, held as cgroups_held, vacate};

/// For a process to end after SIGKILL: it may be in the middle of a large munmap.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Creations of one name that are cut off under a claim before it gives up.
const CLAIM_TRIES: u32 = 8;

#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("kill {process}")]
    Kill { process: Process, source: io::Error },
    #[error("wait for {process} to end")]
    Wait { process: Process, source: io::Error },
    #[error("{process} has not ended {waited:?} after SIGKILL")]
    Unkillable { process: Process, waited: Duration },
    #[error("remove the redirect in network namespace {}", .namespace.display())]
    Redirect { namespace: PathBuf, source: Box<NetworkError> },
    #[error("remove cgroup {}", .path.display())]
    Cgroup { path: PathBuf, source: Box<LeftoverError> },
}

impl UndoError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::State(error) => error.hint(),
            Self::Kill { .. }
            | Self::Wait { .. }
            | Self::Unkillable { .. }
            | Self::Redirect { .. }
            | Self::Cgroup { .. } => None,
        }
    }
}

/// Takes the id for a new container, as `StateDir::claim`. What a creation that was cut off has left is removed first.
///
/// # Errors
/// `StateError::Exists` when the id is taken; or the leftovers cannot be removed.
pub fn claim(root: &Path, id: &ContainerId) -> Result<Locked, UndoError> {
    for _ in 0..CLAIM_TRIES {
        match StateDir::claim(root, id) {
            Err(StateError::CutOff { .. }) => remove_cut_off(root, id)?,
            claimed => return Ok(claimed?),
        }
    }
    Err(StateError::Exists { id: id.clone() }.into())
}

/// Another command may take the directory, finish the container or delete it meanwhile: the next claim says so.
fn remove_cut_off(root: &Path, id: &ContainerId) -> Result<(), UndoError> {
    match StateDir::open(root, id).and_then(StateDir::try_lock) {
        Ok(Some(locked)) if locked.stage() == Stage::Creating => everything(&locked),
        Ok(_) | Err(StateError::Missing { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes all that the journal names, but for the calling process, and then the state directory.
///
/// # Errors
/// The first object that cannot be removed. What comes before it is gone then, and the journal is still there: the call
/// can be repeated.
pub fn everything(dir: &Locked) -> Result<(), UndoError> {
    let entries = dir.journal().entries()?;
    kill(&entries)?;
    for entry in entries.iter().rev() {
        if let Entry::Redirect { namespace, id, interface, tap } = entry {
            let failed = |e| UndoError::Redirect { namespace: namespace.clone(), source: Box::new(e) };
            network::undo(namespace, *id, *interface, *tap).map_err(failed)?;
        }
    }
    cgroups::remove_all(&entries).map_err(|(path, e)| UndoError::Cgroup { path, source: Box::new(e) })?;
    Ok(dir.remove()?)
}

/// Ends the processes of the journal. A server that undoes its own creation is one of them, and is spared.
fn kill(entries: &[Entry]) -> Result<(), UndoError> {
    let own = Process::current().ok();
    let processes = || {
        entries.iter().filter_map(|entry| match entry {
            Entry::Process { process, .. } if Some(*process) != own => Some(*process),
            _ => None,
        })
    };
    for process in processes() {
        process.kill().map_err(|source| UndoError::Kill { process, source })?;
    }
    let deadline = Instant::now() + KILL_WAIT;
    for process in processes() {
        if !process.wait(deadline).map_err(|source| UndoError::Wait { process, source })? {
            return Err(UndoError::Unkillable { process, waited: KILL_WAIT });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
