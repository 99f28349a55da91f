//! Locks of the guest on files of the host, which the host's kernel keeps: so that all who lock a file agree, in this guest, in
//! other microVMs and on the host.
//!
//!   SETLK(fcntl) ─▶ the owner's own description of the file ─▶ F_OFD_SETLK        SETLK(flock) ─▶ the handle's ─▶ flock
//!   SETLKW ─▶ the same, once ─ busy ─▶ parked ─ held by a stranger ─▶ a thread that waits in the kernel (`waiting`)
//!
//! Each owner in the guest has a description of its own, so the host's kernel tells owners of one guest apart as it tells
//! microVMs. Closing the description frees its locks, whatever ends the guest.
//!
//! A request that waits takes a thread only when somebody outside of this guest has the lock. What another owner in the guest
//! has, this side frees itself, and then looks at all who are parked at the file. Requests that would be granted at the same
//! moment share a thread. So a hundred processes that wait for each other cost no thread, and one for a stranger's lock costs one.
//!
//! Waiting requests, threads and locked ranges are bounded; beyond, ENOLCK. There is no EDEADLK: descriptions have none.

mod call;
mod file;
mod queue;
mod ranges;
mod request;
mod threads;
mod waiting;

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::io::Errno;

pub use self::threads::WaiterError;
pub(super) use self::{
    file::{Description, FileLocks},
    request::{Request, told},
    threads::Waiters,
};
use self::{
    file::{Finished, State},
    queue::{Job, Queue},
    request::{Access, Kind},
    waiting::{End, Waiting},
};

/// Requests that wait at once: a quarter of the queue that they occupy, so that the others come through, and the one among them
/// that frees the lock.
const MOST_WAITING: usize = 256;
/// Ranges that a guest has locked at once. Each is some 200 bytes of the host's kernel, which looks through all of a file for each call. What
/// is freed may cut ranges in two, so that there are twice as many.
const MOST_RANGES: usize = 8 << 10;
/// Interrupts that came before their request did: as many as can be on their way.
const MOST_EARLY: usize = 256;

/// Tells how a request that waited has ended. It is called once, or dropped when nobody listens any more.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// What became of a request that may wait.
pub(super) enum Outcome {
    Done(io::Result<()>),
    /// The answer is called when it has ended.
    Later,
}

/// The opening that a lock is asked for by.
pub(super) struct Via<'a> {
    /// Its number.
    pub(super) handle: u64,
    pub(super) file: &'a Arc<File>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Opens the file anew, for writing too if asked.
    pub(super) open: &'a dyn Fn(bool) -> io::Result<Description>,
}

/// The locks of one guest.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Ranges that are locked.
    ranges: Arc<AtomicUsize>,
    waits: Mutex<Waits>,
    /// Told when one of the waits has ended.
    ended: Condvar,
    /// To the threads that wait in the kernel.
    queue: Queue,
}

#[derive(Debug, Default)]
struct Waits {
    /// By the number of the request.
    waiting: HashMap<u64, Job>,
    /// Interrupted before they were here.
    early: VecDeque<u64>,
}

impl Locks {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        // Every change is one call that leaves it whole.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands in the way of a lock, with the process that has it where that is of this guest.
    ///
    /// # Errors
    /// EINVAL for what is no such question; those of the host's file system.
    pub(super) fn test(
        &self,
        locks: Option<&Arc<FileLocks>>,
        file: &File,
        request: &Request,
    ) -> Result<Option<Request>, Errno> {
        let access = request.access.filter(|_| request.kind == Kind::Posix).ok_or(Errno::INVAL)?;
        match locks {
            Some(locks) => locks.state().test(file, request, access),
            None => State::default().test(file, request, access),
        }
    }

    /// Sets or removes a lock, without waiting.
    ///
    /// # Errors
    /// EAGAIN when another has it; EBADF when the opening may not have it; ENOLCK beyond the bounds.
    pub(super) fn set(&self, locks: &Arc<FileLocks>, via: &Via<'_>, request: &Request) -> Result<(), Errno> {
        let mut state = locks.state();
        self.prepare(&mut state, via, request)?;
        let granted = state.attempt(request, via.handle, via.file);
        let finished = self.settle(locks, &mut state);
        drop(state);
        self.tell(finished);
        if granted? { Ok(()) } else { Err(Errno::AGAIN) }
    }

    /// As `set`, and waits while another has the lock; `answer` is called for what is told then.
    pub(super) fn set_waiting(
        &self,
        locks: &Arc<FileLocks>,
        via: &Via<'_>,
        request: Request,
        unique: u64,
        answer: impl FnOnce() -> Answer,
    ) -> Outcome {
        match self.set(locks, via, &request) {
            Err(Errno::AGAIN) => {}
            done => {
                self.waits().early.retain(|early| *early != unique);
                return Outcome::Done(done.map_err(io::Error::from));
            }
        }
        let waiting = Arc::new(Waiting::new(unique, request, via, answer()));
        if let Err(errno) = self.register(unique, locks, &waiting) {
            return Outcome::Done(Err(errno.into()));
        }
        let mut state = locks.state();
        let parked = state.park(&waiting);
        let finished = self.settle(locks, &mut state);
        drop(state);
        match parked {
            Ok(()) => self.tell(finished),
            // It was revoked meanwhile.
            Err(errno) => self.tell([(waiting, Err(errno))].into_iter().chain(finished).collect()),
        }
        Outcome::Later
    }

    /// Checks what does not depend on other owners, and gives the owner a description.
    fn prepare(&self, state: &mut State, via: &Via<'_>, request: &Request) -> Result<(), Errno> {
        if state.is_revoked() {
            return Err(Errno::STALE);
        }
        if request.kind == Kind::Flock {
            return Ok(());
        }
        let Some(access) = request.access else {
            // It may cut a range in two, but for one that covers all.
            let most = if request.range.is_whole() { usize::MAX } else { 2 * MOST_RANGES };
            return self.room(1, most);
        };
        if !(if access == Access::Write { via.writable } else { via.readable }) {
            return Err(Errno::BADF);
        }
        // Itself, and what it cuts in two.
        self.room(2, MOST_RANGES)?;
        state.own(request, via, &self.ranges)
    }

    fn room(&self, more: usize, most: usize) -> Result<(), Errno> {
        if self.ranges.load(Ordering::Relaxed).saturating_add(more) > most {
            Err(Errno::NOLCK)
        } else {
            Ok(())
        }
    }

    fn register(&self, unique: u64, locks: &Arc<FileLocks>, waiting: &Arc<Waiting>) -> Result<(), Errno> {
        let mut waits = self.waits();
        if let Some(at) = waits.early.iter().position(|early| *early == unique) {
            waits.early.remove(at);
            return Err(Errno::INTR);
        }
        if waits.waiting.len() >= MOST_WAITING {
            return Err(Errno::NOLCK);
        }
        // A number that is in use would hide the request that has it.
        if waits.waiting.contains_key(&unique) {
            return Err(Errno::INVAL);
        }
        waits.waiting.insert(unique, (Arc::clone(locks), Arc::clone(waiting)));
        Ok(())
    }

    /// Looks at all who are parked at a file, after anything that may have freed a lock. Returns who waits no longer.
    fn settle(&self, locks: &Arc<FileLocks>, state: &mut State) -> Finished {
        state.settle(|waiting| self.queue.add(locks, waiting))
    }

    /// Answers those who wait no longer. No lock may be held: an answer takes those of the device's queues.
    fn tell(&self, finished: Finished) {
        for (waiting, result) in finished {
            if let Some(answer) = waiting.answer() {
                answer(result);
            }
            self.waits().waiting.remove(&waiting.unique());
            self.ended.notify_all();
        }
    }

    /// A thread has waited for a lock: it is there, or the wait was ended.
    fn waited(&self, locks: &Arc<FileLocks>, waiting: &Arc<Waiting>, outcome: Result<(), Errno>) {
        let mut state = locks.state();
        let result = state.waited(waiting, outcome);
        let mut finished = self.settle(locks, &mut state);
        drop(state);
        // `None`: another was faster, and it is parked again.
        finished.extend(result.map(|result| (Arc::clone(waiting), result)));
        self.tell(finished);
    }

    /// One of the guest's processes has closed a descriptor of the file: its locks on it end, whichever descriptor they came by.
    pub(super) fn flush(&self, locks: &Arc<FileLocks>, owner: u64) {
        let mut state = locks.state();
        state.release_owner(owner);
        let finished = self.settle(locks, &mut state);
        drop(state);
        self.tell(finished);
    }

    /// An opening is closed: locks that came by nothing else end.
    pub(super) fn release(&self, locks: &Arc<FileLocks>, handle: u64, file: &File) {
        let mut state = locks.state();
        state.release_handle(handle, file);
        let finished = self.settle(locks, &mut state);
        drop(state);
        self.tell(finished);
    }

    /// The guest wants no answer but an early one to its request `unique`.
    pub(super) fn interrupt(&self, unique: u64) {
        let waiting = {
            let mut waits = self.waits();
            let waiting = waits.waiting.get(&unique).cloned();
            if waiting.is_none() {
                if waits.early.len() >= MOST_EARLY {
                    waits.early.pop_front();
                }
                waits.early.push_back(unique);
            }
            waiting
        };
        if let Some((locks, waiting)) = waiting {
            self.end(&locks, &waiting, End::Tell(Errno::INTR));
        }
    }

    /// The file is the guest's no more: its locks end, and so does what waits for them, with ESTALE.
    pub(super) fn revoke(&self, locks: &Arc<FileLocks>) {
        let ended = locks.state().revoke();
        for waiting in ended {
            self.end(locks, &waiting, End::Tell(Errno::STALE));
        }
    }

    /// A new mount of the guest counts its requests from the beginning.
    pub(super) fn forget_interrupts(&self) {
        self.waits().early.clear();
    }

    /// Ends everything that waits, without an answer. When it returns, none will be given.
    pub(super) fn end_all(&self) {
        let all: Vec<_> = self.waits().waiting.values().cloned().collect();
        for (locks, waiting) in all {
            self.end(&locks, &waiting, End::Drop);
        }
        let mut waits = self.waits();
        while !waits.waiting.is_empty() {
            waits = self.ended.wait(waits).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a wait, wherever it is. When it returns, its thread is on the way to tell, if it has one.
    fn end(&self, locks: &FileLocks, waiting: &Arc<Waiting>, end: End) {
        waiting.end(end);
        let mut state = locks.state();
        let parked = state.unpark(waiting);
        drop(state);
        if parked {
            self.tell(vec![(Arc::clone(waiting), waiting.ended())]);
        } else {
            waiting.leave();
        }
    }
}

#[cfg(test)]
mod tests;
