//! Who holds the streams of each process on the host, and dies with it.
//!
//!   attach ─▶ Held ─▶ the holder ends: Lost ─▶ its process is killed, as a runc container dies with its init

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use crate::sandbox::key::Key;

/// What a process is attached to. A shim that holds the streams itself will be another kind.
#[derive(Debug, Clone)]
pub(crate) enum Attachment {
    /// A process of the host that stands for it: callers wait for it, signal it and read its pid.
    Proxy { pid: u32, pidfd: Arc<OwnedFd> },
}

impl Attachment {
    /// # Errors
    /// When no process has this pid.
    pub(crate) fn proxy(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self::Proxy { pid, pidfd: Arc::new(pidfd_open(raw, PidfdFlags::empty())?) })
    }

    /// The pid that callers see.
    pub(crate) fn host_pid(&self) -> u32 {
        match self {
            Self::Proxy { pid, .. } => *pid,
        }
    }

    /// Of a process that has the mounts of who creates the container.
    pub(super) fn pidfd(&self) -> &Arc<OwnedFd> {
        match self {
            Self::Proxy { pidfd, .. } => pidfd,
        }
    }

    /// Readable when the holder has ended.
    pub(super) fn end(&self) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
        // SAFETY: an `OwnedFd` is open and the same until its last owner drops it; the `AsyncFd` is one of them.
        Ok(unsafe { AsyncFd::register_with_interest(self.pidfd().clone(), Interest::READABLE) }?)
    }
}

#[derive(Debug, Clone)]
enum Held {
    By(Attachment),
    /// The holder was there and has ended.
    Lost,
}

/// A small map behind a lock, which is never held across an await.
#[derive(Debug, Default)]
pub(super) struct Attachments(Mutex<BTreeMap<Key, Held>>);

impl Attachments {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, key: Key, attachment: Attachment) {
        self.map().insert(key, Held::By(attachment));
    }

    pub(super) fn lost(&self, key: Key) {
        self.map().insert(key, Held::Lost);
    }

    pub(super) fn remove(&self, key: &Key) {
        self.map().remove(key);
    }

    /// `None` when there is none, or none any more.
    pub(super) fn get(&self, key: &Key) -> Option<Attachment> {
        match self.map().get(key) {
            Some(Held::By(attachment)) => Some(attachment.clone()),
            Some(Held::Lost) | None => None,
        }
    }

    pub(super) fn is_lost(&self, key: &Key) -> bool {
        matches!(self.map().get(key), Some(Held::Lost))
    }

    /// Of the holders that live.
    pub(super) fn host_pids(&self) -> Vec<u32> {
        let map = self.map();
        let held = map.values().filter_map(|held| match held {
            Held::By(attachment) => Some(attachment.host_pid()),
            Held::Lost => None,
        });
        held.collect()
    }
}
