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

use bulkhead_protocol::id::{ContainerId, SandboxId};

use crate::{
    network::{self, NetworkError},
    store::{Entry, Locked, LockedSandbox, Process, SandboxDir, Stage, StateDir, StateError},
};

pub use cgroups::{
    BELOW as CGROUPS_BELOW, LeftoverError, held as cgroups_held, remove as remove_cgroup, vacate,
};

/// For a process to end after SIGKILL: it may be in the middle of a large munmap.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at a lock whose holder was killed.
const POLL: Duration = Duration::from_millis(5);

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
    #[error("sandbox {id} is in use by another command")]
    SandboxBusy { id: SandboxId },
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
            | Self::SandboxBusy { .. }
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
            Err(StateError::CutOff { .. }) => cut_off(root, id)?,
            claimed => return Ok(claimed?),
        }
    }
    Err(StateError::Exists { id: id.clone() }.into())
}

/// Removes what a creation that was cut off has left under this id, if there is any and nobody is at work on it.
///
/// # Errors
/// As `everything`.
pub fn cut_off(root: &Path, id: &ContainerId) -> Result<(), UndoError> {
    // Another command may take the directory, finish the container or delete it meanwhile: the next claim says so.
    match StateDir::open(root, id).and_then(StateDir::try_lock) {
        Ok(Some(locked)) if locked.stage() == Stage::Creating => container(&locked),
        Ok(_) | Err(StateError::Missing { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes the id for a new sandbox, as `SandboxDir::claim`. What a server that was killed has left is removed first.
///
/// # Errors
/// `StateError::SandboxExists` when the id is taken, `StateError::Exists` when its host container is there, also if its server
/// has ended; or the leftovers cannot be removed.
pub fn claim_sandbox(root: &Path, id: &SandboxId) -> Result<LockedSandbox, UndoError> {
    for _ in 0..CLAIM_TRIES {
        match SandboxDir::claim(root, id) {
            Err(StateError::SandboxExists { .. }) => {}
            claimed => return Ok(claimed?),
        }
        if let Some(host) = unused_sandbox(root, id)? {
            return Err(StateError::Exists { id: host }.into());
        }
    }
    Err(StateError::SandboxExists { id: id.clone() }.into())
}

/// Removes a sandbox that no server runs and no container needs. The host container for which it stays otherwise.
///
/// # Errors
/// As `everything`.
pub fn unused_sandbox(root: &Path, id: &SandboxId) -> Result<Option<ContainerId>, UndoError> {
    let Some(dir) = SandboxDir::open(root, id)? else { return Ok(None) };
    let host = dir.record()?.and_then(|record| record.host_container);
    if let Some(host) = host
        && StateDir::open(root, &host).is_ok()
    {
        return Ok(Some(host));
    }
    if let Some(locked) = dir.try_lock()? {
        sandbox(&locked)?;
    }
    Ok(None)
}

/// Removes a container, and before it the sandbox whose microVM is in its cgroup.
///
/// # Errors
/// As `everything`, of both.
pub fn container(dir: &Locked) -> Result<(), UndoError> {
    if let Some(sandbox) = hosted(dir)? {
        end_sandbox(sandbox)?;
    }
    everything(dir)
}

/// A record that cannot be read says nothing of a sandbox: one of an older layout has it in its own directory.
fn hosted(dir: &Locked) -> Result<Option<SandboxDir>, UndoError> {
    let record = dir.record().ok().or_else(|| dir.creating().ok().flatten());
    let (Some(record), Some(root)) = (record, dir.path().parent()) else { return Ok(None) };
    let Some(sandbox) = SandboxDir::open(root, &record.sandbox)? else { return Ok(None) };
    let host = sandbox.record()?.and_then(|record| record.host_container);
    Ok((host.as_ref() == Some(dir.id())).then_some(sandbox))
}

/// Ends a sandbox, whatever it is at, and removes it: without its server the lock is free.
fn end_sandbox(dir: SandboxDir) -> Result<(), UndoError> {
    let id = dir.id().clone();
    kill(&dir.journal().entries()?)?;
    let deadline = Instant::now() + KILL_WAIT;
    let mut dir = Some(dir);
    while let Some(unlocked) = dir {
        let root = unlocked.path().ancestors().nth(2).map(Path::to_owned);
        if let Some(locked) = unlocked.try_lock()? {
            return sandbox(&locked);
        }
        if Instant::now() >= deadline {
            return Err(UndoError::SandboxBusy { id });
        }
        std::thread::sleep(POLL);
        dir = root.map_or(Ok(None), |root| SandboxDir::open(&root, &id))?;
    }
    Ok(())
}

/// Removes all that the journal of a sandbox names, but for the calling process, and then its directory.
///
/// # Errors
/// As `everything`.
pub fn sandbox(dir: &LockedSandbox) -> Result<(), UndoError> {
    objects(&dir.journal().entries()?)?;
    Ok(dir.remove()?)
}

/// Removes all that the journal names, but for the calling process, and then the state directory.
///
/// # Errors
/// The first object that cannot be removed. What comes before it is gone then, and the journal is still there: the call
/// can be repeated.
pub fn everything(dir: &Locked) -> Result<(), UndoError> {
    objects(&dir.journal().entries()?)?;
    Ok(dir.remove()?)
}

fn objects(entries: &[Entry]) -> Result<(), UndoError> {
    kill(entries)?;
    for entry in entries.iter().rev() {
        if let Entry::Redirect { namespace, id, interface, tap } = entry {
            let failed = |e| UndoError::Redirect { namespace: namespace.clone(), source: Box::new(e) };
            network::undo(namespace, *id, *interface, *tap).map_err(failed)?;
        }
    }
    cgroups::remove_all(entries).map_err(|(path, e)| UndoError::Cgroup { path, source: Box::new(e) })
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
