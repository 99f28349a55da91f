//! The cgroups that a container leaves: emptied of what its VMM has started, then removed, newest first.
//!
//! All processes in a cgroup belong to the container from `Entry::Owned` to `Entry::Vacated`, and are killed. Outside of that
//! time only the processes of the journal are killed: others may have moved into the directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bulkhead_sys::chain;

use crate::{
    log::note,
    store::{Entry, Process, Scope},
    systemd::{self, SystemdError},
};

/// For the processes that a VMM has left to end, after SIGKILL.
const GONE: Duration = Duration::from_secs(5);
/// For a cgroup to notice that its last process is gone.
const EMPTY: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// Cgroups that `sandbox::cgroup::oom` makes below a container's for a moment. A server that is killed in this moment leaves
/// them, and in the first the processes of the container.
pub const BELOW: [&str; 2] = ["bulkhead-aside", "bulkhead-oom"];

/// Why a cgroup is not empty, or cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    #[error("list the processes in the cgroup")]
    List { source: io::Error },
    #[error("kill {process}")]
    Kill { process: Process, source: io::Error },
    #[error("wait for {process} to end")]
    Wait { process: Process, source: io::Error },
    #[error("{process} has not ended {waited:?} after SIGKILL")]
    Unkillable { process: Process, waited: Duration },
    #[error("processes in the cgroup kept starting others for {waited:?}")]
    Forking { waited: Duration },
    #[error("the cgroup holds processes that do not belong to the container")]
    NotOurs,
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    #[error("remove the directory")]
    Remove { source: io::Error },
}

/// What a journal says of cgroups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    /// All processes in them are to be killed.
    pub(super) owned: Vec<PathBuf>,
    /// Directories that were made, the last one first.
    pub(super) made: Vec<PathBuf>,
    /// Units of systemd.
    pub(super) scopes: Vec<(Scope, PathBuf)>,
}

impl Leftovers {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut left = Self::default();
        for entry in entries {
            match entry {
                Entry::Cgroup { path } => left.made.push(path.clone()),
                Entry::Foreign { path } => left.made.retain(|made| made != path),
                Entry::Owned { path } => left.owned.push(path.clone()),
                Entry::Vacated { path } => left.owned.retain(|owned| owned != path),
                Entry::Scope { scope, path } => left.scopes.push((scope.clone(), path.clone())),
                Entry::Process { .. } | Entry::Redirect { .. } => {}
            }
        }
        left.made.reverse();
        left
    }
}

/// The directories that a container has made or runs in.
pub fn held(entries: &[Entry]) -> impl Iterator<Item = PathBuf> {
    let Leftovers { owned, made, scopes } = Leftovers::of(entries);
    owned.into_iter().chain(made).chain(scopes.into_iter().map(|(_, path)| path))
}

/// Kills what is in the cgroup itself beside `ours`, which end on their own. Cgroups below it were made by others.
///
/// # Errors
/// When a process does not end.
pub fn vacate(path: &Path, ours: &[u32]) -> Result<(), LeftoverError> {
    let deadline = Instant::now() + GONE;
    // What is born meanwhile is found in the next round.
    loop {
        let known: Vec<Process> = strangers(path, ours)?.filter_map(|pid| Process::of(pid).ok()).collect();
        // Those that are still in it have the start times that were read.
        let still: Vec<u32> = strangers(path, ours)?.collect();
        if still.is_empty() {
            return Ok(());
        }
        let known: Vec<_> = known.iter().filter(|process| still.contains(&process.pid)).collect();
        for &&process in &known {
            process.kill().map_err(|source| LeftoverError::Kill { process, source })?;
        }
        for &&process in &known {
            if !process.wait(deadline).map_err(|source| LeftoverError::Wait { process, source })? {
                return Err(LeftoverError::Unkillable { process, waited: GONE });
            }
        }
        if Instant::now() >= deadline {
            return Err(LeftoverError::Forking { waited: GONE });
        }
    }
}

fn strangers(path: &Path, ours: &[u32]) -> Result<impl Iterator<Item = u32>, LeftoverError> {
    let text = match fs::read_to_string(path.join("cgroup.procs")) {
        Ok(text) => text,
        // Without a directory there is nobody in it.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => String::new(),
        Err(source) => return Err(LeftoverError::List { source }),
    };
    let pids: Vec<u32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
    // 0 is a process outside of this one's pid namespace, which it could not kill.
    Ok(pids.into_iter().filter(|pid| *pid != 0 && !ours.contains(pid)))
}

/// Removes all that the journal names.
///
/// # Errors
/// The first cgroup of the container that cannot be emptied or removed.
pub(super) fn remove_all(entries: &[Entry]) -> Result<(), (PathBuf, LeftoverError)> {
    let Leftovers { owned, made, scopes } = Leftovers::of(entries);
    for path in owned {
        for below in below(&path) {
            vacate(&below, &[]).and_then(|()| remove(&below)).map_err(|e| (below, e))?;
        }
        if !has_children(&path) {
            // At once and with what they fork meanwhile, since Linux 5.14.
            let _ = fs::write(path.join("cgroup.kill"), "1");
        }
        vacate(&path, &[]).map_err(|e| (path.clone(), e))?;
    }
    for (scope, path) in scopes {
        end_scope(&scope, &path).map_err(|e| (path, e))?;
    }
    // The last one is that of the processes, the others only lead to it.
    for (index, path) in made.into_iter().enumerate() {
        match remove(&path) {
            Err(LeftoverError::NotOurs) if index > 0 => {}
            removed => removed.map_err(|e| (path, e))?,
        }
    }
    Ok(())
}

/// systemd would kill whoever is in it, so it is asked when nobody is.
fn end_scope(scope: &Scope, path: &Path) -> Result<(), LeftoverError> {
    let deadline = Instant::now() + EMPTY;
    while strangers(path, &[])?.next().is_some() {
        if Instant::now() >= deadline {
            return Err(LeftoverError::NotOurs);
        }
        std::thread::sleep(POLL);
    }
    match systemd::stop(scope) {
        // Without systemd there is a directory at most.
        Ok(()) | Err(SystemdError::Absent) => remove(path),
        // It ended by itself with its last process, and systemd told of no job.
        Err(error) if error.is_late() && !path.exists() => {
            note(&format!("{} has ended: {}", scope.unit, chain(&error)));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn below(path: &Path) -> impl Iterator<Item = PathBuf> {
    BELOW.iter().map(|name| path.join(name)).filter(|below| below.is_dir())
}

/// A directory that others use meanwhile (`bulkhead/` of several containers) stays: the last of them removes it.
///
/// # Errors
/// When processes are left in it.
pub fn remove(path: &Path) -> Result<(), LeftoverError> {
    for below in below(path) {
        remove(&below)?;
    }
    let deadline = Instant::now() + EMPTY;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) if source.kind() != io::ErrorKind::ResourceBusy => {
                return Err(LeftoverError::Remove { source });
            }
            Err(_) if has_children(path) => return Ok(()),
            Err(_) if Instant::now() >= deadline => return Err(LeftoverError::NotOurs),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn has_children(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
    })
}

#[cfg(test)]
mod tests;
