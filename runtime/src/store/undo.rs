//! Removes all that a container has left anywhere, from its journal alone.
//!
//!   processes: SIGKILL to all, then wait for each ─▶ redirects ─▶ cgroups, newest first ─▶ the state directory
//!
//! Safe to repeat at any point: the directory goes last, and what is already gone is no error. Mounts need no undoing:
//! they live in the server's mount namespace and end with it.

use std::time::{Duration, Instant};

use crate::network;

use super::{Entry, Locked, Process, StateError, cgroups, remove};

/// For a process to end after SIGKILL: it may be in the middle of a large munmap.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How far to go.
#[derive(Debug, Clone)]
pub struct Undo {
    /// Not to be killed: the process that does the undoing.
    spare: Option<Process>,
}

impl Undo {
    pub fn everything() -> Self {
        Self { spare: Process::current().ok() }
    }
}

/// # Errors
/// A process that cannot be killed, a cgroup that stays busy, or a directory that cannot be removed. The rest has been
/// undone then, and the journal is still there.
pub fn undo(dir: &Locked, how: &Undo) -> Result<(), StateError> {
    let entries = dir.journal().entries()?;
    let processes: Vec<Process> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Process { process, .. } if Some(*process) != how.spare => Some(*process),
            _ => None,
        })
        .collect();
    for process in &processes {
        process.kill().map_err(|e| StateError::io(format!("kill {process}"), e))?;
    }
    let deadline = Instant::now() + KILL_WAIT;
    for process in &processes {
        let gone = process.wait(deadline).map_err(|e| StateError::io(format!("wait for {process}"), e))?;
        if !gone {
            return Err(StateError::Unkillable { process: *process, waited: KILL_WAIT });
        }
    }
    for entry in entries.iter().rev() {
        if let Entry::Redirect { namespace, id, interface, tap } = entry {
            network::undo(namespace, *id, *interface, *tap).map_err(|e| {
                let what = format!("undo the redirect in network namespace {}", namespace.display());
                StateError::io(what, std::io::Error::other(e))
            })?;
        }
    }
    cgroups::remove_all(&entries)
        .map_err(|(path, e)| StateError::io(format!("remove cgroup {}", path.display()), e))?;
    remove::tree(dir.path())
        .map_err(|e| StateError::io(format!("remove state directory {}", dir.path().display()), e))
}
