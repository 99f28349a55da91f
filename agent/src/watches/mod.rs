//! Watchers in containers (inotify) hear of changes that the host makes in their volumes.
//!
//!   host ─WaitWatches─▶ `Scanner` looks every `PAUSE` ─▶ the set of watched paths, when it is another one
//!   host ─TellWatchers─▶ the inodes behind the paths ─ioctl─▶ the guest's kernel ─▶ inotify
//!
//! Nothing happens while the host does not ask. Scans take at most one part in `SHARE_OF_TIME` of the time, however many
//! processes, descriptors and watches there are. Beside that, each new watch costs about what it cost to make.

mod fdinfo;
mod handle;
mod kernel;
mod scan;
mod volumes;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bulkhead_protocol::{
    limits,
    watch::{Answer, FileEvent},
};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep_until},
};

use self::{
    kernel::Kernel,
    scan::{Scanner, Set, Table},
};
use crate::container::Volumes;

/// Between two scans, at least.
const PAUSE: Duration = Duration::from_secs(2);
const SHARE_OF_TIME: u32 = 50;

#[derive(Debug, thiserror::Error)]
pub enum WatchesError {
    #[error("look for watches")]
    Scan { source: io::Error },
    #[error("look for watches")]
    Thread { source: JoinError },
    #[error("open the share for telling watchers")]
    Share { source: io::Error },
    /// A kernel without our change of its source.
    #[error("have the kernel tell watchers")]
    Kernel { source: io::Error },
}

/// Clones are the same.
#[derive(Debug, Clone)]
pub struct Watches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    share: PathBuf,
    volumes: Volumes,
    /// The last call; earlier ones end.
    call: AtomicU64,
    state: tokio::sync::Mutex<State>,
    table: Mutex<Arc<Table>>,
    kernel: OnceLock<Kernel>,
}

#[derive(Debug)]
struct State {
    scanner: Scanner,
    set: Set,
    generation: u64,
    next_scan: Instant,
}

impl Watches {
    /// In these volumes of a share that is mounted here.
    pub fn new(share: &Path, volumes: Volumes) -> Self {
        // A container that is just started is not held up, and a short one is never looked at.
        let next_scan = Instant::now() + PAUSE;
        let state = State { scanner: Scanner::default(), set: Set::default(), generation: 1, next_scan };
        Self(Arc::new(Inner {
            share: share.to_owned(),
            volumes,
            call: AtomicU64::new(0),
            state: tokio::sync::Mutex::new(state),
            table: Mutex::default(),
            kernel: OnceLock::new(),
        }))
    }

    /// What is watched in the volumes, as soon as it is another set than that of generation `seen`, at the latest after
    /// `limits::WATCH_POLL`, and when there is a later call. Not to `look` is to forget all, at once.
    ///
    /// # Errors
    /// When the guest cannot look.
    pub async fn wait(&self, look: bool, seen: u64) -> Result<Answer, WatchesError> {
        let call = self.0.call.fetch_add(1, Ordering::Relaxed) + 1;
        let deadline = Instant::now() + limits::WATCH_POLL;
        loop {
            let next_scan = self.0.state.lock().await.next_scan;
            if look {
                sleep_until(next_scan.min(deadline)).await;
            }
            let state = self.0.state.lock().await;
            let superseded = self.0.call.load(Ordering::Relaxed) != call;
            if superseded || Instant::now() >= deadline {
                return Ok(state.answer());
            }
            drop(state);
            let answer = self.scan(look).await?;
            if answer.generation != seen || !look {
                return Ok(answer);
            }
        }
    }

    async fn scan(&self, look: bool) -> Result<Answer, WatchesError> {
        let inner = self.0.clone();
        let work = move || {
            let mut state = inner.state.blocking_lock();
            let began = Instant::now();
            let set = if look {
                let found = state.scanner.scan(&inner.volumes.of_share());
                state.next_scan = Instant::now() + pause(began.elapsed(), state.scanner.opening());
                found.map_err(|source| WatchesError::Scan { source })?
            } else {
                state.scanner = Scanner::default();
                Set::default()
            };
            if set != state.set {
                state.set = set;
                state.generation += 1;
            }
            *inner.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(state.scanner.table());
            Ok(state.answer())
        };
        spawn_blocking(work).await.map_err(|source| WatchesError::Thread { source })?
    }

    /// Tells watchers, in this order. What nobody watches any more is passed over.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub fn tell(&self, events: &[FileEvent]) -> Result<(), WatchesError> {
        let kernel = self.kernel()?;
        let table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for event in events {
            for watched in table.get(&event.path).into_iter().flatten() {
                match kernel.tell(watched, event) {
                    // A name in what is no directory, since the host says what it likes; an inode that has become another file.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::EIO)) => {}
                    told => told.map_err(|source| WatchesError::Kernel { source })?,
                }
            }
        }
        Ok(())
    }

    fn kernel(&self) -> Result<&Kernel, WatchesError> {
        if let Some(kernel) = self.0.kernel.get() {
            return Ok(kernel);
        }
        let opened = Kernel::of(&self.0.share).map_err(|source| WatchesError::Share { source })?;
        Ok(self.0.kernel.get_or_init(|| opened))
    }
}

/// After a scan. New watches cost once: many at a time must not put off the next scan, which may find the last of them.
fn pause(took: Duration, opening: Duration) -> Duration {
    PAUSE.max(took.saturating_sub(opening) * SHARE_OF_TIME)
}

impl State {
    fn answer(&self) -> Answer {
        Answer {
            generation: self.generation,
            watches: self.set.watches.clone(),
            left_out: self.set.left_out,
            first_left_out: self.set.first_left_out.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
