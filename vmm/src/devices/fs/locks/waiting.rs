//! One request that waits for a lock, and the queue to the threads that wait in the kernel.
//!
//!   parked ─▶ `Queue` ─▶ a thread: enter ─▶ call ─▶ exit ─▶ told        end ─▶ signal, again until the thread has left the call
//!
//! A signal that comes just before the call is lost, so it is sent until the thread is out. The thread looks whether the request
//! was ended after it has said that it is in.

use std::{
    collections::VecDeque,
    fs::File,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rustix::io::Errno;

use super::{
    Answer, Via,
    call::{self, Wait},
    file::FileLocks,
    request::{Kind, Request},
};

/// When a thread is signalled again that has not left the call.
const AGAIN: Duration = Duration::from_millis(1);

/// Why a request waits no longer without having got its lock.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Tell(Errno),
    /// Nobody listens.
    Drop,
}

/// As the kernel numbers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thread {
    pub(super) process: libc::pid_t,
    pub(super) id: libc::pid_t,
}

pub(super) struct Waiting {
    unique: u64,
    request: Request,
    handle: u64,
    file: Arc<File>,
    locks: Arc<FileLocks>,
    answer: Mutex<Option<Answer>>,
    end: OnceLock<End>,
    /// The thread that is in a call for it.
    within: Mutex<Option<Thread>>,
    left: Condvar,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { unique, request, .. } = self;
        f.debug_struct("Waiting").field("unique", unique).field("request", request).finish_non_exhaustive()
    }
}

impl Waiting {
    pub(super) fn new(
        unique: u64,
        request: Request,
        via: &Via<'_>,
        locks: &Arc<FileLocks>,
        answer: Answer,
    ) -> Self {
        Self {
            unique,
            request,
            handle: via.handle,
            file: Arc::clone(via.file),
            locks: Arc::clone(locks),
            answer: Mutex::new(Some(answer)),
            end: OnceLock::new(),
            within: Mutex::new(None),
            left: Condvar::new(),
        }
    }

    pub(super) fn unique(&self) -> u64 {
        self.unique
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    pub(super) fn handle(&self) -> u64 {
        self.handle
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn locks(&self) -> &Arc<FileLocks> {
        &self.locks
    }

    /// The way to tell how it ended; `None` when it was taken, or nobody listens.
    pub(super) fn answer(&self) -> Option<Answer> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if matches!(self.end.get(), Some(End::Drop)) { None } else { answer }
    }

    /// The first end counts.
    pub(super) fn end(&self, end: End) {
        let _ = self.end.set(end);
    }

    /// What is to be told of a request that was ended.
    pub(super) fn ended(&self) -> Result<(), Errno> {
        match self.end.get() {
            None => Ok(()),
            Some(End::Tell(errno)) => Err(*errno),
            Some(End::Drop) => Err(Errno::INTR),
        }
    }

    fn within(&self) -> MutexGuard<'_, Option<Thread>> {
        self.within.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the lock in the calling thread, until it is there or the request is ended.
    pub(super) fn wait(&self, thread: Thread) -> Result<(), Errno> {
        let Request { kind, owner, range, access, .. } = self.request;
        // The owner is there as long as a request of it waits, unless the file was taken from the guest.
        let description = match kind {
            Kind::Posix => Some(self.locks.state().description(owner).ok_or(Errno::STALE)?),
            Kind::Flock => None,
        };
        *self.within() = Some(thread);
        let outcome = loop {
            if let Err(errno) = self.ended() {
                break Err(errno);
            }
            let done = match &description {
                Some(description) => call::range(description.file(), range, access, Wait::Yes),
                None => call::flock(&*self.file, access, Wait::Yes),
            };
            if done != Err(Errno::INTR) {
                break done;
            }
        };
        *self.within() = None;
        self.left.notify_all();
        outcome
    }

    /// Makes the thread that waits leave the call. To be called when the request was ended.
    pub(super) fn leave(&self) {
        let mut within = self.within();
        while let Some(Thread { process, id }) = *within {
            call::wake(process, id);
            (within, _) = self.left.wait_timeout(within, AGAIN).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Requests on their way to a thread. There are never more than threads that are free.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Pending>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    requests: VecDeque<Arc<Waiting>>,
    free: usize,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, Pending> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// ENOLCK when no thread is free.
    pub(super) fn add(&self, waiting: &Arc<Waiting>) -> Result<(), Errno> {
        let mut state = self.state();
        if state.requests.len() >= state.free {
            return Err(Errno::NOLCK);
        }
        state.requests.push_back(Arc::clone(waiting));
        self.more.notify_one();
        Ok(())
    }

    /// The next request for the calling thread, which is free until there is one. `None`: the thread is to end.
    pub(super) fn next(&self) -> Option<Arc<Waiting>> {
        let mut state = self.state();
        state.free += 1;
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.requests.pop_front() {
                state.free -= 1;
                return Some(next);
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// All threads end.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.more.notify_all();
    }
}
