//! The workers: a few threads that take requests off both queues, so that a slow file does not hold up the others.
//!
//!   kick ──EPOLLEXCLUSIVE──▶ one idle worker ─▶ lock queue, pop ─▶ serve without the lock ─▶ lock queue, push, signal
//!
//! The threads come with the device, before the guest runs, confine themselves and wait; an activation gives them a `Pool`
//! to serve and dropping that takes it back, which waits for requests in flight. Kicks stay enabled while requests are served:
//! the next one wakes the next idle worker. A worker that pops a chain and sees another wakes one more. Requests are
//! answered in any order, as FUSE allows; slow ones wait for each other (`slow`). A request that waits for a lock leaves its worker,
//! and its chain is answered by whoever ends the wait (`locks`). `stop` is never read, so once written it wakes all.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Instant,
};

use rustix::event::epoll::{self, EventData, EventFlags};
use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_queue::DescriptorChain;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{
    direct::Served,
    filter::Filter,
    locks::Answer,
    message::{self, FileServer},
    patience::Patience,
    slow::{Slow, is_slow},
};
use crate::{
    confine::Kind,
    devices::{
        device::Activation,
        interrupt::Interrupt,
        queue::{ActiveQueue, QueueError},
    },
    event_loop::borrow,
    memory::{Memory, MemoryError},
    threads::{Entering, ThreadError, confined},
};

/// One may sync, one may wait for a disk, and one is left.
const WORKERS: usize = 3;
/// The workers that slow operations may take.
const SLOW: usize = WORKERS - 1;
const STOP: u64 = u64::MAX;

#[derive(Debug, thiserror::Error)]
pub(super) enum PoolError {
    #[error("view guest memory")]
    Memory(#[from] MemoryError),
    #[error("create the event descriptors of the file workers")]
    Events { source: io::Error },
}

/// The threads, with or without a pool to serve; dropping them ends them.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<(Sender<Shift>, JoinHandle<()>)>,
}

/// What a worker serves until the pool stops. Dropping it says that the worker touches the pool no more.
struct Shift {
    shared: Arc<Shared>,
    ready: Sender<io::Result<()>>,
    _over: Sender<()>,
}

impl Workers {
    /// Returns when all are confined.
    pub(super) fn spawn(filter: &Filter) -> Result<Self, ThreadError> {
        let mut workers = Self { threads: Vec::new() };
        let mut entering = Vec::new();
        for number in 0..WORKERS {
            let (shifts, taken) = channel::<Shift>();
            let filter = filter.clone();
            // Serving files changes what threads of a process share otherwise: the working directory and the umask.
            let before = move || filter.prepare_thread();
            let run = move |()| taken.iter().for_each(|shift| shift.serve());
            let (thread, enters) = confined(Kind::Files, format!("fs{number}"), before, run)?;
            workers.threads.push((shifts, thread));
            entering.push(enters);
        }
        entering.into_iter().try_for_each(Entering::wait)?;
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (shifts, thread) in self.threads.drain(..) {
            drop(shifts);
            // A panic has been reported by the hook.
            let _ = thread.join();
        }
    }
}

/// One that keeps its memory, so that it may be put off.
type Chain = DescriptorChain<Memory<BitmapMmapRegion>>;

/// A queue and its doorbell; the doorbell is waited for without the lock.
#[derive(Debug)]
struct Lane {
    queue: Mutex<ActiveQueue>,
    kick: EventFd,
    patience: Patience,
}

/// What the workers share.
#[derive(Debug)]
struct Shared {
    memory: Memory<BitmapMmapRegion>,
    lanes: Vec<Lane>,
    interrupt: Arc<Interrupt>,
    server: Arc<FileServer>,
    /// With the number of the lane that each came from.
    slow: Slow<(usize, Chain)>,
    idle: AtomicUsize,
    /// A worker looks for the next request instead of sleeping.
    lingering: AtomicBool,
    stopping: AtomicBool,
    stop: EventFd,
}

/// An activated device, which workers serve.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    /// Never carries anything; disconnects when all workers are done.
    over: Receiver<()>,
}

impl Pool {
    /// Returns when all workers are ready.
    pub(super) fn start(
        activation: Activation,
        server: Arc<FileServer>,
        workers: &Workers,
    ) -> Result<Self, PoolError> {
        let events = |source| PoolError::Events { source };
        let most = activation.queues.iter().map(|queue| usize::from(queue.size())).sum();
        let lanes = activation
            .queues
            .into_iter()
            .map(|queue| {
                let (kick, patience) = (queue.kick().try_clone()?, Patience::default());
                Ok(Lane { kick, queue: Mutex::new(queue), patience })
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(events)?;
        let shared = Arc::new(Shared {
            memory: activation.memory.view()?,
            lanes,
            interrupt: activation.interrupt,
            server,
            slow: Slow::new(SLOW, most),
            idle: AtomicUsize::new(0),
            lingering: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(events)?,
        });
        let ((ready, started), (working, over)) = (channel(), channel());
        let pool = Self { shared, over };
        for (shifts, _) in &workers.threads {
            let shared = Arc::clone(&pool.shared);
            // The workers live as long as the device.
            let _ = shifts.send(Shift { shared, ready: ready.clone(), _over: working.clone() });
        }
        drop((ready, working));
        // All senders are gone when the last worker has spoken.
        for outcome in started.iter().take(workers.threads.len()) {
            outcome.map_err(events)?;
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // The counter is 0 or 1, never near its maximum.
        let _ = self.shared.stop.write(1);
        // Always an error: nothing is sent.
        let _ = self.over.recv();
    }
}

impl Shift {
    /// Serves until the pool stops.
    fn serve(&self) {
        let Self { shared, ready, .. } = self;
        let epoll = match watch(shared) {
            Ok(epoll) => epoll,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        // What came before anyone listened, or before a restore.
        for (number, lane) in shared.lanes.iter().enumerate() {
            shared.serve_all(number, lane);
        }
        let mut events = Vec::with_capacity(shared.lanes.len() + 1);
        while !shared.stopping.load(Ordering::Acquire) {
            events.clear();
            shared.idle.fetch_add(1, Ordering::AcqRel);
            let waited = epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None);
            shared.idle.fetch_sub(1, Ordering::AcqRel);
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Impossible with a set and a buffer of our own; a worker less is better than one that spins.
                Err(_) => return,
            }
            for event in &events {
                let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                let Some(lane) = shared.lanes.get(number) else { continue };
                // EAGAIN: another worker was faster.
                let _ = lane.kick.read();
                shared.serve_all(number, lane);
                shared.linger(number, lane);
            }
        }
    }
}

/// The events that end a worker's waiting.
fn watch(shared: &Shared) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, lane) in shared.lanes.iter().enumerate() {
        // Exclusive: a kick wakes one of those that wait, not all.
        let events = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&epoll, borrow(&lane.kick), EventData::new_u64(number as u64), events)?;
    }
    epoll::add(&epoll, borrow(&shared.stop), EventData::new_u64(STOP), EventFlags::IN)?;
    Ok(epoll)
}

impl Shared {
    /// Serves a queue until it is empty.
    fn serve_all(self: &Arc<Self>, number: usize, lane: &Lane) {
        while !self.stopping.load(Ordering::Acquire) && !self.interrupt.failed() {
            match self.serve_one(number, lane) {
                Ok(true) => {}
                Ok(false) => return,
                // The driver broke the ring: nothing on it can be trusted until it resets the device.
                Err(_) => return self.interrupt.fail(),
            }
        }
    }

    /// Looks for the next request before the worker sleeps: a guest that has its answer mostly asks again soon, and a kick and a
    /// wake-up cost more than the answer. One worker does that; all others hear of kicks that come meanwhile.
    fn linger(self: &Arc<Self>, number: usize, lane: &Lane) {
        if self.lingering.swap(true, Ordering::AcqRel) {
            return;
        }
        while let Some(patience) = lane.patience.of_a_look() {
            let started = Instant::now();
            let memory = &*self.memory;
            // A broken ring is found by whoever takes from it.
            let _ = lock(lane).silence_kicks(memory);
            let found = loop {
                if !lock(lane).is_empty(memory) {
                    break true;
                }
                if started.elapsed() > patience || self.stopping.load(Ordering::Acquire) {
                    break false;
                }
                (0..32).for_each(|_| std::hint::spin_loop());
            };
            lane.patience.learn(started.elapsed(), found);
            // It asks for kicks again, and sees what came before they were on.
            self.serve_all(number, lane);
            if !found {
                break;
            }
        }
        self.lingering.store(false, Ordering::Release);
    }

    /// Serves one request, or puts it off if it is slow; false if there was none.
    fn serve_one(self: &Arc<Self>, number: usize, lane: &Lane) -> Result<bool, QueueError> {
        let memory = &*self.memory;
        let (chain, more) = {
            let mut queue = lock(lane);
            let Some(chain) = queue.pop(self.memory.clone())? else {
                // What arrived before kicks were on again has rung no bell.
                return queue.enable_kicks(memory);
            };
            (chain, queue.enable_kicks(memory)?)
        };
        if more && self.idle.load(Ordering::Acquire) > 0 {
            // EAGAIN: the doorbell has been rung already.
            let _ = lane.kick.write(1);
        }
        if !is_slow(memory, chain.clone()) {
            self.answer(number, lane, &chain)?;
            return Ok(true);
        }
        let mut turn = self.slow.enter((number, chain));
        while let Some((number, chain)) = turn {
            if let Some(lane) = self.lanes.get(number) {
                self.answer(number, lane, &chain)?;
            }
            // What still waits when the device stops is not begun, as what was never taken off the queue.
            if self.stopping.load(Ordering::Acquire) || self.interrupt.failed() {
                return Ok(false);
            }
            turn = self.slow.leave();
        }
        Ok(true)
    }

    fn answer(self: &Arc<Self>, number: usize, lane: &Lane, chain: &Chain) -> Result<(), QueueError> {
        let head = chain.head_index();
        let later = |unique| self.later(number, chain.clone(), unique);
        match self.server.serve(&self.memory, chain.clone(), later) {
            Served::Now(written) => self.give_back(lane, head, written),
            Served::Later => Ok(()),
        }
    }

    /// What is called for the request of a chain when it has waited.
    fn later(self: &Arc<Self>, number: usize, chain: Chain, unique: u64) -> Answer {
        let shared = Arc::clone(self);
        Box::new(move |result| {
            let head = chain.head_index();
            let written = message::late(&shared.memory, chain, unique, result);
            let Some(lane) = shared.lanes.get(number) else { return };
            if shared.give_back(lane, head, written).is_err() {
                // As where a worker finds the ring broken.
                shared.interrupt.fail();
            }
        })
    }

    fn give_back(&self, lane: &Lane, head: u16, written: u32) -> Result<(), QueueError> {
        let memory = &*self.memory;
        let mut queue = lock(lane);
        queue.push(memory, head, written)?;
        if queue.needs_interrupt(memory) {
            self.interrupt.signal_queue();
        }
        Ok(())
    }
}

fn lock(lane: &Lane) -> MutexGuard<'_, ActiveQueue> {
    // Every change of the queue is one call that leaves it whole.
    lane.queue.lock().unwrap_or_else(PoisonError::into_inner)
}
