//! The workers of all disks: a few threads that take requests off the queues and wait for the host's storage.
//!
//!   kick of a disk ──one epoll set──▶ one idle worker ─▶ lock queue, pop ─▶ serve without the lock ─▶ lock queue, push, signal
//!
//! The threads come with the boot, for a VMM whose guest runs starts none; disks come and go. A disk that a driver has activated is
//! a `Lane`: dropping it takes it back, which waits for requests in flight. Requests are answered in any order, as virtio allows.
//! One disk never has all workers, so that a disk whose host does not answer holds up itself.
//!
//! Kicks are edges (EPOLLET): each wakes one worker, and is not read.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use rustix::event::epoll::{self, EventData, EventFlags};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::disk::{Cache, Disk};
use crate::{
    confine::Kind,
    devices::{
        device::Activation,
        interrupt::Interrupt,
        queue::{ActiveQueue, QueueError},
    },
    event_loop::borrow,
    memory::Memory,
    threads::{Entering, ThreadError, confined, unprepared},
};

const WORKERS: usize = 4;
/// Of them, for one disk.
const MOST: usize = WORKERS - 1;
/// The number of no lane.
const STOP: u64 = u64::MAX;

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("create the event descriptors of the disk workers")]
    Events { source: io::Error },
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("the driver set up another number of queues than one")]
    Queues,
    #[error("watch the doorbell")]
    Watch { source: io::Error },
}

/// The threads; dropping them ends them. Lanes that are left are not served any more.
#[derive(Debug)]
pub struct Workers {
    pool: Pool,
    threads: Vec<JoinHandle<()>>,
}

/// Where disks find the workers.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    lanes: Mutex<Lanes>,
    idle: AtomicUsize,
    /// Never read, so once written it wakes all.
    stop: EventFd,
}

#[derive(Debug, Default)]
struct Lanes {
    next: u64,
    served: BTreeMap<u64, Arc<Active>>,
}

impl Workers {
    /// Returns when all are confined.
    ///
    /// # Errors
    /// There is no descriptor or thread, or a thread could not be confined.
    pub fn spawn() -> Result<Self, WorkerError> {
        let events = |source| WorkerError::Events { source };
        let shared = Shared {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| events(errno.into()))?,
            lanes: Mutex::default(),
            idle: AtomicUsize::new(0),
            stop: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(events)?,
        };
        epoll::add(&shared.epoll, borrow(&shared.stop), EventData::new_u64(STOP), EventFlags::IN)
            .map_err(|errno| events(errno.into()))?;
        let mut workers = Self { pool: Pool(Arc::new(shared)), threads: Vec::new() };
        let mut entering = Vec::new();
        for number in 0..WORKERS {
            let shared = Arc::clone(&workers.pool.0);
            let run = move |()| shared.work();
            let (thread, enters) = confined(Kind::Disks, format!("disk{number}"), unprepared, run)?;
            workers.threads.push(thread);
            entering.push(enters);
        }
        entering.into_iter().try_for_each(Entering::wait)?;
        Ok(workers)
    }

    pub fn pool(&self) -> Pool {
        self.pool.clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // The counter is 0 or 1, never near its maximum.
        let _ = self.pool.0.stop.write(1);
        for thread in self.threads.drain(..) {
            // A panic has been reported by the hook.
            let _ = thread.join();
        }
    }
}

impl Pool {
    /// Serves the queue of a disk until the lane is dropped.
    pub(super) fn serve(&self, activation: Activation, disk: &Arc<Disk>) -> Result<Lane, ServeError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let [queue] = <[ActiveQueue; 1]>::try_from(queues).map_err(|_| ServeError::Queues)?;
        let active = Arc::new(Active {
            kick: queue.doorbell(),
            queue: Mutex::new(queue),
            memory,
            interrupt,
            disk: Arc::clone(disk),
            cache: Cache::of(features),
            gate: Gate::default(),
        });
        let number = {
            let mut lanes = self.0.lanes();
            let number = lanes.next;
            lanes.next += 1;
            lanes.served.insert(number, Arc::clone(&active));
            number
        };
        // From here on its drop undoes all of it.
        let lane = Lane { pool: self.clone(), number, active };
        let kick = borrow(&lane.active.kick);
        epoll::add(&self.0.epoll, kick, EventData::new_u64(number), EventFlags::IN | EventFlags::ET)
            .map_err(|errno| ServeError::Watch { source: errno.into() })?;
        // What came before anyone listened, or before a restore. EAGAIN: the doorbell has been rung already.
        let _ = lane.active.kick.write(1);
        Ok(lane)
    }
}

/// A disk that is being served.
#[derive(Debug)]
pub(super) struct Lane {
    pool: Pool,
    number: u64,
    active: Arc<Active>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.pool.0.lanes().served.remove(&self.number);
        // The transport keeps a copy of the doorbell, so the kernel would not forget it by itself. ENOENT: it was never watched.
        let _ = epoll::delete(&self.pool.0.epoll, borrow(&self.active.kick));
        self.active.gate.stop();
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Each critical section leaves the table whole.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker does.
    fn work(&self) {
        // One at a time: what waits in a list of a worker's waits for that worker.
        let mut events = Vec::with_capacity(1);
        loop {
            events.clear();
            self.idle.fetch_add(1, Ordering::AcqRel);
            let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None);
            self.idle.fetch_sub(1, Ordering::AcqRel);
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Impossible with a set and a buffer of our own; a worker less is better than one that spins.
                Err(_) => return,
            }
            for event in &events {
                let number = event.data.u64();
                if number == STOP {
                    return;
                }
                // `None`: it has just been taken back.
                let active = self.lanes().served.get(&number).cloned();
                if let Some(active) = active {
                    active.serve(&self.idle);
                }
            }
        }
    }
}

/// What the workers know of a disk that is served.
#[derive(Debug)]
struct Active {
    queue: Mutex<ActiveQueue>,
    /// The queue's doorbell; it is waited for without the lock.
    kick: Arc<EventFd>,
    memory: Memory,
    interrupt: Arc<Interrupt>,
    disk: Arc<Disk>,
    cache: Cache,
    gate: Gate,
}

/// Lets workers to a disk, as many as may be there, until it stops.
#[derive(Debug, Default)]
pub(super) struct Gate {
    turns: Mutex<Turns>,
    /// No worker is there any more.
    over: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    busy: usize,
    /// A worker was sent away: one of those who are busy looks at the queue once more.
    again: bool,
    stopping: bool,
}

impl Gate {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when enough are there, or it stops.
    pub(super) fn enter(&self) -> bool {
        let mut turns = self.turns();
        if turns.stopping {
            return false;
        }
        if turns.busy == MOST {
            turns.again = true;
            return false;
        }
        turns.busy += 1;
        true
    }

    /// False when there may be more to serve.
    pub(super) fn leave(&self) -> bool {
        let mut turns = self.turns();
        if std::mem::take(&mut turns.again) && !turns.stopping {
            return false;
        }
        turns.busy -= 1;
        if turns.busy == 0 {
            self.over.notify_all();
        }
        true
    }

    fn is_stopping(&self) -> bool {
        self.turns().stopping
    }

    /// Lets nobody in any more; returns when all have left.
    pub(super) fn stop(&self) {
        let mut turns = self.turns();
        turns.stopping = true;
        while turns.busy > 0 {
            turns = self.over.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Active {
    /// Serves the queue until it is empty. `idle`: workers who wait for something to do.
    fn serve(&self, idle: &AtomicUsize) {
        if !self.gate.enter() {
            return;
        }
        loop {
            while !self.gate.is_stopping() && !self.interrupt.failed() {
                match self.serve_one(idle) {
                    Ok(true) => {}
                    Ok(false) => break,
                    // The driver broke the ring: nothing on it can be trusted until it resets the device.
                    Err(error) => {
                        crate::log::limited(&error);
                        self.interrupt.fail();
                    }
                }
            }
            if self.gate.leave() {
                return;
            }
        }
    }

    /// False when there was nothing to serve.
    fn serve_one(&self, idle: &AtomicUsize) -> Result<bool, QueueError> {
        let memory = &*self.memory;
        let (chain, more) = {
            let mut queue = self.queue();
            let Some(chain) = queue.pop(memory)? else {
                // What arrived before kicks were on again has rung no bell.
                return queue.enable_kicks(memory);
            };
            (chain, queue.enable_kicks(memory)?)
        };
        if more && idle.load(Ordering::Acquire) > 0 {
            // EAGAIN: the doorbell has been rung already.
            let _ = self.kick.write(1);
        }
        let head = chain.head_index();
        let written = self.disk.serve(&self.memory, chain, self.cache);
        let mut queue = self.queue();
        queue.push(memory, head, written)?;
        if queue.needs_interrupt(memory) {
            self.interrupt.signal_queue();
        }
        Ok(true)
    }

    fn queue(&self) -> MutexGuard<'_, ActiveQueue> {
        // Every change of the queue is one call that leaves it whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
