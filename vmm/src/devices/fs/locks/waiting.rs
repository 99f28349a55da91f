//! One request that waits for a lock, from its first failure to its answer.
//!
//!   parked ─▶ a thread: within ─▶ call ─▶ out ─▶ told        end ─▶ signal, again until the thread has left the call
//!
//! A signal that comes just before the call is lost, so it is sent until the thread is out. The thread looks whether the request
//! was ended after it has said that it is in.

use std::{
    fs::File,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rustix::io::Errno;

use super::{
    Answer, Via,
    call::{self, Wait},
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
    pub(super) fn new(unique: u64, request: Request, via: &Via<'_>, answer: Answer) -> Self {
        Self {
            unique,
            request,
            handle: via.handle,
            file: Arc::clone(via.file),
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

    /// Waits for the lock in the calling thread, until it is there or the request is ended. `file`: by which the owner locks.
    pub(super) fn wait(&self, thread: Thread, file: &File) -> Result<(), Errno> {
        let Request { kind, range, access, .. } = self.request;
        *self.within() = Some(thread);
        let outcome = loop {
            if let Err(errno) = self.ended() {
                break Err(errno);
            }
            let done = match kind {
                Kind::Posix => call::range(file, range, access, Wait::Yes),
                Kind::Flock => call::flock(file, access, Wait::Yes),
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
