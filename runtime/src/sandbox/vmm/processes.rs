//! The host processes of a VMM, to be ended whatever it does.
//!
//!   spawn ─▶ outer process ─fork▶ jailed process, whose pid the VMM tells once, before it knows of a guest
//!
//! What it tells is checked all the same, for root kills by it: a process of this name must be a child of the outer process
//! or, when that has ended, of this server, which is its subreaper. Both are held by descriptor from then on.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    log::note,
    store::{Held, Process},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    #[error("look at process {pid}, which the VMM says is its own")]
    Look { pid: u32, source: io::Error },
    #[error("process {pid} is not the VMM's, as it says")]
    Foreign { pid: u32 },
}

/// Clones are the same processes.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    outer: Process,
    held: Arc<Mutex<Vec<Held>>>,
}

impl Processes {
    /// Of a VMM that was just spawned as a child of this process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let outer = Process::of(pid)?;
        // One that is gone already needs no end.
        let held = outer.hold()?.into_iter().collect();
        Ok(Self { outer, held: Arc::new(Mutex::new(held)) })
    }

    pub(crate) fn outer(&self) -> Process {
        self.outer
    }

    /// Those that are held now.
    pub(crate) fn all(&self) -> Vec<Process> {
        self.held().iter().map(|held| held.process).collect()
    }

    /// The process that the VMM tells of; `None` when it has ended.
    pub(crate) fn adopt(&self, pid: u32) -> Result<Option<Process>, AdoptError> {
        let look = |source| AdoptError::Look { pid, source };
        let process = match Process::of(pid) {
            Ok(process) => process,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(look(e)),
        };
        let Some(held) = process.hold().map_err(look)? else { return Ok(None) };
        let Some(parent) = held.parent().map_err(look)? else { return Ok(None) };
        let by_parent = parent == self.outer.pid || parent == std::process::id();
        if process == self.outer || !by_parent || process.start_ticks < self.outer.start_ticks {
            return Err(AdoptError::Foreign { pid });
        }
        self.held().push(held);
        Ok(Some(process))
    }

    /// A descriptor of the process that is in the jail.
    ///
    /// # Errors
    /// When the VMM has not told of it, or is no more.
    pub(crate) fn jailed(&self) -> io::Result<OwnedFd> {
        let held = self.held();
        let jailed = held.iter().rfind(|held| held.process != self.outer).ok_or(io::ErrorKind::NotFound)?;
        jailed.pidfd().try_clone()
    }

    /// Whether a signal has stopped one of them.
    pub(crate) fn stand_still(&self) -> bool {
        self.held().iter().any(Held::is_stopped)
    }

    /// SIGKILL to all, without waiting.
    pub(crate) fn kill(&self) {
        for held in self.held().iter() {
            if let Err(error) = held.kill() {
                note(&format!("kill the VMM, {}: {error}", held.process));
            }
        }
    }

    /// Kills all and waits for their end.
    pub(crate) fn end(&self, deadline: Instant) {
        self.kill();
        for held in self.held().iter() {
            if !matches!(held.wait(deadline), Ok(true)) {
                note(&format!("the VMM, {}, does not end", held.process));
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
