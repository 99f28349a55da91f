//! The locks on one file: which owners of this guest have some, and who waits.
//!
//!   owner ─▶ `Description` with its `Ranges`      handle ─▶ flock      parked, in order      with a thread
//!
//! What is recorded is what the host's kernel has for the same descriptions, for each change is made under the lock of this
//! state, with the system call. Only waiting is done without it, and what a wait brought is asked for once more under the lock.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::io::Errno;

use super::{
    super::budget::Slot,
    Via,
    call::{self, Wait},
    ranges::Ranges,
    request::{Access, Kind, Range, Request},
    waiting::Waiting,
};

/// Who waits no longer, and how it ended.
pub(super) type Finished = Vec<(Arc<Waiting>, Result<(), Errno>)>;

/// A file that is open for the locks of one owner.
#[derive(Debug)]
pub(in super::super) struct Description {
    file: File,
    writable: bool,
    _slot: Slot,
}

impl Description {
    pub(in super::super) fn new(file: File, writable: bool, slot: Slot) -> Self {
        Self { file, writable, _slot: slot }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// The locks on one file.
#[derive(Debug, Default)]
pub(in super::super) struct FileLocks(Mutex<State>);

impl FileLocks {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No panic is possible between a system call and its record.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    owners: HashMap<u64, Owner>,
    /// flock(2), by handle.
    flocks: HashMap<u64, Access>,
    /// In the order in which they came.
    parked: VecDeque<Arc<Waiting>>,
    /// Those that a thread waits for.
    threads: Vec<Arc<Waiting>>,
    revoked: bool,
}

/// An owner of byte ranges.
#[derive(Debug)]
struct Owner {
    description: Arc<Description>,
    ranges: Ranges,
    tally: Tally,
    pid: u32,
    /// The handles that its locks came by.
    handles: Vec<u64>,
    /// Its requests that wait.
    waiting: usize,
}

/// What an owner has of the ranges of all.
#[derive(Debug)]
struct Tally {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Tally {
    fn set(&mut self, own: usize) {
        self.all.fetch_add(own, Ordering::Relaxed);
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        self.own = own;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Owner {
    fn comes_by(&mut self, handle: u64) {
        if !self.handles.contains(&handle) {
            self.handles.push(handle);
        }
    }

    fn set(&mut self, range: Range, access: Option<Access>) -> Result<(), Errno> {
        call::range(&self.description.file, range, access, Wait::No)?;
        self.ranges.set(range, access);
        self.tally.set(self.ranges.len());
        Ok(())
    }

    /// Frees all; returns whether the owner is to go as well. A thread may wait by its description, and must find it again.
    fn clear(&mut self) -> bool {
        if self.ranges.len() > 0 {
            // An unlock that fails frees nothing, and the description is closed when the last request has ended.
            let _ = Range::new(0, i64::MAX.cast_unsigned())
                .map(|all| call::range(&self.description.file, all, None, Wait::No));
        }
        self.ranges.clear();
        self.tally.set(0);
        self.waiting == 0
    }
}

impl State {
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// Gives an owner a description by which it can have the lock.
    pub(super) fn own(
        &mut self,
        request: &Request,
        via: &Via<'_>,
        all: &Arc<AtomicUsize>,
    ) -> Result<(), Errno> {
        if self.revoked {
            return Err(Errno::STALE);
        }
        let open = |writable| match (via.open)(writable) {
            Ok(description) => Ok(Arc::new(description)),
            Err(error) => Err(match Errno::from_io_error(&error) {
                Some(Errno::NFILE | Errno::MFILE) | None => Errno::NOLCK,
                Some(errno) => errno,
            }),
        };
        if let Some(owner) = self.owners.get_mut(&request.owner) {
            owner.pid = request.pid;
            owner.comes_by(via.handle);
            if request.access == Some(Access::Write) && !owner.description.writable {
                // By a description that cannot write the owner has nothing but locks for reading, which two descriptions may
                // share. So none is lost while they move over.
                let description = open(true)?;
                for (range, access) in owner.ranges.iter() {
                    call::range(&description.file, range, Some(access), Wait::No)?;
                }
                owner.description = description;
            }
            return Ok(());
        }
        let owner = Owner {
            description: open(via.writable)?,
            ranges: Ranges::default(),
            tally: Tally { all: Arc::clone(all), own: 0 },
            pid: request.pid,
            handles: vec![via.handle],
            waiting: 0,
        };
        self.owners.insert(request.owner, owner);
        Ok(())
    }

    /// Sets or removes a lock if it can be had now. `file` is that of the handle.
    pub(super) fn attempt(&mut self, request: &Request, handle: u64, file: &File) -> Result<bool, Errno> {
        let done = match request.kind {
            Kind::Posix => match self.owners.get_mut(&request.owner) {
                Some(owner) => {
                    owner.comes_by(handle);
                    owner.set(request.range, request.access)
                }
                // It has no lock to remove; a lock to set is asked for with an owner that was made.
                None if request.access.is_none() => Ok(()),
                None => Err(Errno::STALE),
            },
            Kind::Flock => {
                let done = call::flock(file, request.access, Wait::No);
                // An attempt that fails has cost the lock that there was (flock(2)).
                self.flocks.remove(&handle);
                if let (Ok(()), Some(access)) = (done, request.access) {
                    self.flocks.insert(handle, access);
                }
                done
            }
        };
        match done {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn test(
        &self,
        file: &File,
        request: &Request,
        access: Access,
    ) -> Result<Option<Request>, Errno> {
        // By the owner's description, or its own locks would stand in its way. A handle's has none of this kind.
        let file = self.owners.get(&request.owner).map_or(file, |owner| owner.description.file());
        let Some(obstacle) = call::test(file, request.range, access)? else { return Ok(None) };
        let holds = |(owner, state): &(&u64, &Owner)| {
            **owner != request.owner
                && state
                    .ranges
                    .iter()
                    .any(|(range, access)| range.overlaps(obstacle.range) && access == obstacle.access)
        };
        // A stranger has no number in this guest.
        let pid = self.owners.iter().find(holds).map_or(0, |(_, owner)| owner.pid);
        Ok(Some(Request { range: obstacle.range, access: Some(obstacle.access), pid, ..*request }))
    }

    pub(super) fn park(&mut self, waiting: &Arc<Waiting>) -> Result<(), Errno> {
        if self.revoked {
            return Err(Errno::STALE);
        }
        let request = waiting.request();
        if request.kind == Kind::Posix {
            self.owners.get_mut(&request.owner).ok_or(Errno::STALE)?.waiting += 1;
        }
        self.parked.push_back(Arc::clone(waiting));
        Ok(())
    }

    /// False when it is not parked: a thread has it, or it has ended.
    pub(super) fn unpark(&mut self, waiting: &Arc<Waiting>) -> bool {
        let Some(at) = self.parked.iter().position(|parked| Arc::ptr_eq(parked, waiting)) else {
            return false;
        };
        self.parked.remove(at);
        self.waits_no_longer(waiting);
        true
    }

    fn waits_no_longer(&mut self, waiting: &Waiting) {
        let request = waiting.request();
        if request.kind != Kind::Posix {
            return;
        }
        if let Some(owner) = self.owners.get_mut(&request.owner) {
            owner.waiting = owner.waiting.saturating_sub(1);
            if owner.waiting == 0 && owner.handles.is_empty() {
                self.owners.remove(&request.owner);
            }
        }
    }

    /// Looks at all who are parked: grants what can be had, and gives to `thread` what a stranger holds.
    pub(super) fn settle(&mut self, thread: impl Fn(&Arc<Waiting>) -> Result<(), Errno>) -> Finished {
        let mut finished = Finished::new();
        // Another turn after a grant: who gets a lock for reading may have had one for writing.
        while self.settle_once(&thread, &mut finished) > 0 {}
        finished
    }

    /// Returns how many got their locks.
    fn settle_once(
        &mut self,
        thread: &impl Fn(&Arc<Waiting>) -> Result<(), Errno>,
        finished: &mut Finished,
    ) -> usize {
        let mut granted = 0;
        for waiting in std::mem::take(&mut self.parked) {
            let request = waiting.request();
            if let Err(errno) = waiting.ended() {
                // While it was on the way here, so that nobody found it.
                self.waits_no_longer(&waiting);
                finished.push((waiting, Err(errno)));
                continue;
            }
            if self.is_held_here(request, waiting.handle())
                || self.threads.iter().any(|other| other.request().is_like(request))
            {
                self.parked.push_back(waiting);
                continue;
            }
            let result = match self.attempt(request, waiting.handle(), waiting.file()) {
                Ok(false) => match thread(&waiting) {
                    Ok(()) => {
                        self.threads.push(waiting);
                        continue;
                    }
                    Err(errno) => Err(errno),
                },
                Ok(true) => {
                    granted += 1;
                    Ok(())
                }
                Err(errno) => Err(errno),
            };
            self.waits_no_longer(&waiting);
            finished.push((waiting, result));
        }
        granted
    }

    /// Whether another owner of this guest is in the way: then it is this side that frees the lock.
    fn is_held_here(&self, request: &Request, handle: u64) -> bool {
        let Some(access) = request.access else { return false };
        match request.kind {
            Kind::Posix => self.owners.iter().any(|(number, owner)| {
                *number != request.owner && owner.ranges.conflict(request.range, access).is_some()
            }),
            Kind::Flock => self
                .flocks
                .iter()
                .any(|(other, held)| *other != handle && (*held == Access::Write || access == Access::Write)),
        }
    }

    /// The description that a thread is to wait by.
    pub(super) fn description(&self, owner: u64) -> Option<Arc<Description>> {
        self.owners.get(&owner).map(|owner| Arc::clone(&owner.description))
    }

    /// A thread comes back. `None`: the lock was lost again, and the request is parked.
    pub(super) fn waited(
        &mut self,
        waiting: &Arc<Waiting>,
        outcome: Result<(), Errno>,
    ) -> Option<Result<(), Errno>> {
        self.threads.retain(|other| !Arc::ptr_eq(other, waiting));
        let granted = outcome.and_then(|()| {
            if self.revoked {
                return Err(Errno::STALE);
            }
            // What the owner did meanwhile, unlocking above all, came before or after the grant: this says which.
            self.attempt(waiting.request(), waiting.handle(), waiting.file())
        });
        if granted == Ok(false) {
            self.parked.push_front(Arc::clone(waiting));
            return None;
        }
        self.waits_no_longer(waiting);
        Some(granted.map(|_| ()))
    }

    /// Ends the locks of one owner, as its process does by closing any descriptor of the file.
    pub(super) fn release_owner(&mut self, owner: u64) {
        let Some(state) = self.owners.get_mut(&owner) else { return };
        state.handles.clear();
        if state.clear() {
            self.owners.remove(&owner);
        }
    }

    /// Ends the locks of an opening, and of owners that have locked by no other: the guest's openings can be owners too
    /// (F_OFD_SETLK), and nothing else says that one of those is closed.
    pub(super) fn release_handle(&mut self, handle: u64, file: &File) {
        if self.flocks.remove(&handle).is_some() {
            // The file is closed when the last request that uses it is done; the lock is to be free now.
            let _ = call::flock(file, None, Wait::No);
        }
        self.owners.retain(|_, owner| {
            let before = owner.handles.len();
            owner.handles.retain(|by| *by != handle);
            let was_last = before > 0 && owner.handles.is_empty();
            !(was_last && owner.clear())
        });
    }

    /// Ends all locks; returns what waits, which is to be ended.
    pub(super) fn revoke(&mut self) -> Vec<Arc<Waiting>> {
        self.revoked = true;
        // Without a call: whoever takes a file from the guest may make few. The descriptions are closed, or will be by the threads
        // that wait by them.
        self.flocks.clear();
        self.owners.clear();
        self.parked.iter().chain(&self.threads).map(Arc::clone).collect()
    }
}
