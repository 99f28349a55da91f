//! Removes all that a container has left anywhere, from its journal alone.
//!
//!   processes: SIGKILL to all, then wait for each ─▶ cgroups and redirects, newest first ─▶ the state directory
//!
//! Safe to repeat at any point: the directory goes last, and what is already gone is no error. Mounts need no undoing:
//! they live in the server's mount namespace and end with it.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use crate::network;

use super::{Entry, Locked, Process, StateError, remove};

/// For a process to end after SIGKILL: it may be in the middle of a large munmap.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// For a cgroup to notice that its last process is gone.
const CGROUP_WAIT: Duration = Duration::from_secs(2);
const CGROUP_POLL: Duration = Duration::from_millis(5);

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
            Entry::Process { .. } | Entry::Cgroup { .. } | Entry::Redirect { .. } => None,
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
        match entry {
            Entry::Process { .. } => {}
            Entry::Cgroup { path } => {
                remove_cgroup(path)
                    .map_err(|e| StateError::io(format!("remove cgroup {}", path.display()), e))?;
            }
            Entry::Redirect { namespace, id, interface } => {
                network::undo(namespace, *id, *interface).map_err(|e| {
                    let what = format!("undo the redirect in network namespace {}", namespace.display());
                    StateError::io(what, std::io::Error::other(e))
                })?;
            }
        }
    }
    remove::tree(dir.path())
        .map_err(|e| StateError::io(format!("remove state directory {}", dir.path().display()), e))
}

/// Kills what is left in it, then removes it. A parent that others use meanwhile (`bulkhead/` of several containers)
/// stays: the last of them removes it.
fn remove_cgroup(path: &Path) -> io::Result<()> {
    let has_children = || {
        fs::read_dir(path).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.file_type().is_ok_and(|t| t.is_dir())))
        })
    };
    let deadline = Instant::now() + CGROUP_WAIT;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::ResourceBusy => return Err(e),
            Err(_) if has_children() => return Ok(()),
            Err(e) if Instant::now() >= deadline => return Err(e),
            Err(_) => {
                // Before Linux 5.14 there is no such file; then the processes of the journal were all there are.
                let _ = fs::write(path.join("cgroup.kill"), "1");
                std::thread::sleep(CGROUP_POLL);
            }
        }
    }
}
