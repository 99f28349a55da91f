//! Who holds the streams of each process on the host, and dies with it.
//!
//!   attach ─▶ Held ─▶ the holder ends: Lost ─▶ its process is killed, as a runc container dies with its init

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{log::note, sandbox::key::Key, store::Process};

/// What a process is attached to. A shim that holds the streams itself will be another kind.
#[derive(Debug, Clone)]
pub(crate) enum Attachment {
    /// A process of the host that stands for it: callers wait for it, signal it and read its pid.
    Proxy { process: Process, pidfd: Arc<OwnedFd> },
}

impl Attachment {
    /// # Errors
    /// When no process has this pid.
    pub(crate) fn proxy(pid: u32) -> io::Result<Self> {
        let process = Process::of(pid)?;
        let pidfd = process.pidfd()?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self::Proxy { process, pidfd: Arc::new(pidfd) })
    }

    /// Stands for the process on the host: callers see its pid.
    pub(crate) fn process(&self) -> Process {
        match self {
            Self::Proxy { process, .. } => *process,
        }
    }

    /// Of a process that has the mounts of who creates the container.
    pub(super) fn pidfd(&self) -> &Arc<OwnedFd> {
        match self {
            Self::Proxy { pidfd, .. } => pidfd,
        }
    }

    /// Ends the holder.
    pub(super) fn kill(&self) {
        if let Err(error) = self.process().kill() {
            note(&format!("kill the proxy, {}: {error}", self.process()));
        }
    }
}

/// Readable when the process behind the descriptor has ended.
pub(super) fn end_of(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` is open and the same until its last owner drops it; the `AsyncFd` is one of them.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

#[derive(Debug, Clone)]
struct Held {
    attachment: Attachment,
    /// The holder was there and has ended.
    lost: bool,
}

/// A small map behind a lock, which is never held across an await.
#[derive(Debug, Default)]
pub(super) struct Attachments(Mutex<BTreeMap<Key, Held>>);

impl Attachments {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, key: Key, attachment: Attachment) {
        self.map().insert(key, Held { attachment, lost: false });
    }

    pub(super) fn lost(&self, key: &Key) {
        if let Some(held) = self.map().get_mut(key) {
            held.lost = true;
        }
    }

    pub(super) fn remove(&self, key: &Key) {
        self.map().remove(key);
    }

    /// `None` when there is none, or none any more.
    pub(super) fn get(&self, key: &Key) -> Option<Attachment> {
        self.map().get(key).filter(|held| !held.lost).map(|held| held.attachment.clone())
    }

    /// Also of a holder that has ended.
    pub(super) fn process(&self, key: &Key) -> Option<Process> {
        self.map().get(key).map(|held| held.attachment.process())
    }

    pub(super) fn is_lost(&self, key: &Key) -> bool {
        self.map().get(key).is_some_and(|held| held.lost)
    }

    /// Of the holders that live.
    pub(super) fn host_pids(&self) -> Vec<u32> {
        self.map().values().filter(|held| !held.lost).map(|held| held.attachment.process().pid).collect()
    }
}
