//! Requests on their way to the threads that wait in the kernel. There are never more of them than threads that are free.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{file::FileLocks, waiting::Waiting};

/// A request, with the file that it is for.
pub(super) type Job = (Arc<FileLocks>, Arc<Waiting>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Pending>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    requests: VecDeque<Job>,
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
    pub(super) fn add(&self, locks: &Arc<FileLocks>, waiting: &Arc<Waiting>) -> Result<(), Errno> {
        let mut state = self.state();
        if state.requests.len() >= state.free {
            return Err(Errno::NOLCK);
        }
        state.requests.push_back((Arc::clone(locks), Arc::clone(waiting)));
        self.more.notify_one();
        Ok(())
    }

    /// So many threads are free from now on: new ones, before they have come here, or one that has done its work.
    pub(super) fn free(&self, threads: usize) {
        self.state().free += threads;
    }

    /// The next request for the calling thread, which is free until there is one. `None`: the thread is to end.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state();
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
