//! The workers: a few threads that take requests off both queues, so that one slow file does not hold up the rest.
//!
//!   kick ──EPOLLEXCLUSIVE──▶ one idle worker ─▶ lock queue, pop ─▶ serve without the lock ─▶ lock queue, push, signal
//!
//! Kicks stay enabled while requests are served: the next one wakes the next idle worker. A worker that pops a chain
//! and sees another wakes one more. Requests are answered in any order, as FUSE allows. `stop` is never read, so
//! once written it wakes all; dropping the pool waits for requests in flight.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

use rustix::event::epoll::{self, EventData, EventFlags};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{
    message::{FileMemory, FileServer},
    metrics::Metrics,
};
use crate::{
    devices::{
        Activation,
        interrupt::Interrupt,
        queue::{ActiveQueue, QueueError},
    },
    event_loop::borrow,
    memory::{Memory, MemoryError},
};

/// One may sync, one may wait for a disk, and one is left.
const WORKERS: usize = 3;
const STOP: u64 = u64::MAX;

#[derive(Debug, thiserror::Error)]
pub(super) enum PoolError {
    #[error("view guest memory")]
    Memory(#[from] MemoryError),
    #[error("make the workers' stop event")]
    Stop { source: io::Error },
    #[error("start a file worker")]
    Start { source: io::Error },
}

/// What the workers share.
#[derive(Debug)]
struct Shared {
    memory: Memory<vhost_user_backend::bitmap::BitmapMmapRegion>,
    queues: Vec<Mutex<ActiveQueue>>,
    kicks: Vec<OwnedFd>,
    interrupt: Arc<Interrupt>,
    server: Arc<FileServer>,
    idle: AtomicUsize,
    stop: EventFd,
}

#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Returns when all workers wait for requests.
    pub(super) fn start(
        activation: Activation,
        server: Arc<FileServer>,
        _metrics: Arc<Metrics>,
    ) -> Result<Self, PoolError> {
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| PoolError::Stop { source })?;
        let shared = Arc::new(Shared {
            memory: activation.memory.view()?,
            queues: activation.queues.into_iter().map(Mutex::new).collect(),
            kicks: Vec::new(),
            interrupt: activation.interrupt,
            server,
            idle: AtomicUsize::new(0),
            stop,
        });
        let mut pool = Self { shared, threads: Vec::new() };
        let (ready, started) = channel();
        for number in 0..WORKERS {
            let shared = Arc::clone(&pool.shared);
            let ready = ready.clone();
            let thread = thread::Builder::new()
                .name(format!("fs{number}"))
                .spawn(move || run(&shared, &ready))
                .map_err(|source| PoolError::Start { source })?;
            pool.threads.push(thread);
        }
        drop(ready);
        for outcome in started.iter().take(WORKERS) {
            outcome.map_err(|source| PoolError::Start { source })?;
        }
        Ok(pool)
    }
}
