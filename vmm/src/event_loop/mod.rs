//! The one device loop: an epoll set, its subscribers, one thread.
//!
//!   vCPU or control thread ── Handle::add / remove (message + wake) ──▶ loop thread ── start / ready ──▶ subscriber
//!
//! A subscriber is the working half of a device. The loop thread owns it, and no other thread touches it. `remove` returns
//! when the subscriber is dropped: after that no queue is touched. The loop takes no lock of a caller, so none can be held
//! in a circle.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{Timespec, epoll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{
    confine::Kind,
    threads::{ThreadError, confined, unprepared},
};

pub use rustix::event::epoll::EventFlags as Events;

/// How long a caller waits for the loop to take its message.
const ANSWER: Duration = Duration::from_secs(5);
/// Ready descriptors taken per turn.
const BATCH: usize = 32;
const NAME: &str = "devices";
/// The wake-up eventfd's number; subscribers count from 1.
const WAKE: u32 = 0;

#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    #[error("create the device loop")]
    Create { source: io::Error },
    #[error("start the device loop")]
    Thread(#[from] ThreadError),
    #[error("start a device on the loop")]
    Start { source: io::Error },
    #[error("the device loop does not answer")]
    Gone,
}

/// A subscriber's own number for one of its descriptors. Events of a descriptor that was removed in the same turn
/// may still come: use a fresh token for each new descriptor and ignore unknown ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u32);

/// The working half of a device, on the loop thread. Must never block.
pub trait Subscriber: Send + Debug {
    /// Registers the descriptors, and does the first pass over the queues without waiting for a kick.
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()>;

    /// One descriptor is ready.
    fn ready(&mut self, token: Token, events: Events, registrar: &mut Registrar<'_>);

    /// When `expired` should be called; asked after each turn.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has passed.
    fn expired(&mut self, _registrar: &mut Registrar<'_>) {}
}

/// Registers descriptors in the name of one subscriber.
#[derive(Debug)]
pub struct Registrar<'a> {
    epoll: BorrowedFd<'a>,
    owners: &'a mut Owners,
    subscriber: u32,
}

/// Who registered which descriptor. The kernel forgets a descriptor only when its last copy is closed, and the
/// transport keeps copies of the kicks: so the loop takes out what a subscriber leaves behind.
type Owners = BTreeMap<RawFd, u32>;

impl Registrar<'_> {
    /// Watches a descriptor until it is removed or the subscriber goes. Level-triggered unless `events` has `ET`.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): EEXIST for a descriptor that is watched already.
    pub fn add(&mut self, fd: impl AsFd, token: Token, events: Events) -> io::Result<()> {
        let fd = fd.as_fd();
        epoll::add(self.epoll, fd, key(self.subscriber, token.0), events)?;
        self.owners.insert(fd.as_raw_fd(), self.subscriber);
        Ok(())
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): ENOENT for a descriptor that is not watched.
    pub fn modify(&mut self, fd: impl AsFd, token: Token, events: Events) -> io::Result<()> {
        Ok(epoll::modify(self.epoll, fd, key(self.subscriber, token.0), events)?)
    }

    /// Stops watching. Closing the last copy of the descriptor does it too.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): ENOENT for a descriptor that is not watched.
    pub fn remove(&mut self, fd: impl AsFd) -> io::Result<()> {
        let fd = fd.as_fd();
        self.owners.remove(&fd.as_raw_fd());
        Ok(epoll::delete(self.epoll, fd)?)
    }
}

fn key(subscriber: u32, token: u32) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(subscriber) << 32 | u64::from(token))
}

/// Names a subscriber on the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriberId(u32);

#[derive(Debug)]
enum Command {
    Add(u32, Box<dyn Subscriber>, SyncSender<io::Result<()>>),
    Remove(u32, SyncSender<()>),
    Quit,
}

/// Any thread's way to the loop.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    next: Arc<AtomicU32>,
}

impl Handle {
    /// Hands a subscriber over; returns when its `start` has run.
    ///
    /// # Errors
    /// Its `start` failed, or the loop does not answer. The subscriber is dropped then, by the loop at the latest.
    pub fn add(&self, subscriber: Box<dyn Subscriber>) -> Result<SubscriberId, LoopError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = sync_channel(1);
        self.send(Command::Add(id, subscriber, answer))?;
        match answered.recv_timeout(ANSWER) {
            Ok(Ok(())) => Ok(SubscriberId(id)),
            Ok(Err(source)) => Err(LoopError::Start { source }),
            Err(_) => {
                // If it starts after all, nobody would know it: take it off again.
                let _ = self.send(Command::Remove(id, sync_channel(1).0));
                Err(LoopError::Gone)
            }
        }
    }

    /// Takes a subscriber off the loop; returns when it is dropped.
    ///
    /// # Errors
    /// The loop does not answer. An unknown subscriber is no error.
    pub fn remove(&self, id: SubscriberId) -> Result<(), LoopError> {
        let (answer, answered) = sync_channel(1);
        self.send(Command::Remove(id.0, answer))?;
        answered.recv_timeout(ANSWER).map_err(|_| LoopError::Gone)
    }

    fn send(&self, command: Command) -> Result<(), LoopError> {
        self.commands.send(command).map_err(|_| LoopError::Gone)?;
        // EAGAIN means that the counter is full: the loop wakes anyway.
        let _ = self.wake.write(1);
        Ok(())
    }
}

/// The running loop; dropping it ends the thread.
#[derive(Debug)]
pub struct EventLoop {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl EventLoop {
    /// Returns when the thread is confined.
    ///
    /// # Errors
    /// There is no descriptor or thread, or the thread could not be confined.
    pub fn spawn() -> Result<Self, LoopError> {
        let create = |source| LoopError::Create { source };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| create(errno.into()))?;
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(create)?);
        let (commands, received) = channel();
        epoll::add(&epoll, borrow(&wake), key(WAKE, 0), Events::IN).map_err(|errno| create(errno.into()))?;
        let turn = Turn {
            epoll,
            wake: Arc::clone(&wake),
            commands: received,
            subscribers: BTreeMap::new(),
            owners: Owners::new(),
        };
        let (thread, enters) = confined(Kind::Devices, NAME, unprepared, move |()| turn.run())?;
        let handle = Handle { commands, wake, next: Arc::new(AtomicU32::new(WAKE + 1)) };
        let event_loop = Self { handle, thread: Some(thread) };
        enters.wait()?;
        Ok(event_loop)
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        let _ = self.handle.send(Command::Quit);
        if let Some(thread) = self.thread.take() {
            // A panic of the loop has been reported on stderr by the panic hook.
            let _ = thread.join();
        }
    }
}

/// What the loop thread owns.
struct Turn {
    epoll: OwnedFd,
    wake: Arc<EventFd>,
    commands: Receiver<Command>,
    subscribers: BTreeMap<u32, Box<dyn Subscriber>>,
    owners: Owners,
}

impl Turn {
    fn run(mut self) {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // EBADF or EFAULT would be a bug here; without the loop the VM is dead, and silence is worse.
                Err(errno) => panic!("wait for device events: {errno}"),
            }
            for event in &events {
                let data = event.data.u64();
                let (subscriber, token) = ((data >> 32) as u32, data as u32);
                if subscriber == WAKE {
                    let _ = self.wake.read();
                    continue;
                }
                if let Some(device) = self.subscribers.get_mut(&subscriber) {
                    let owners = &mut self.owners;
                    let mut registrar = Registrar { epoll: self.epoll.as_fd(), owners, subscriber };
                    device.ready(Token(token), event.flags, &mut registrar);
                }
            }
            self.expire();
            while let Ok(command) = self.commands.try_recv() {
                if !self.execute(command) {
                    return;
                }
            }
        }
    }

    /// False when the loop shall end.
    fn execute(&mut self, command: Command) -> bool {
        // A caller that has given up waiting is no reason to stop.
        match command {
            Command::Add(id, mut device, answer) => {
                let owners = &mut self.owners;
                let mut registrar = Registrar { epoll: self.epoll.as_fd(), owners, subscriber: id };
                let started = device.start(&mut registrar);
                if started.is_ok() {
                    self.subscribers.insert(id, device);
                } else {
                    self.forget(id);
                }
                let _ = answer.send(started);
            }
            Command::Remove(id, answer) => {
                self.forget(id);
                self.subscribers.remove(&id);
                let _ = answer.send(());
            }
            Command::Quit => return false,
        }
        true
    }

    /// Takes a subscriber's descriptors out of the epoll set, while they are open.
    fn forget(&mut self, id: u32) {
        let epoll = &self.epoll;
        self.owners.retain(|&fd, &mut owner| {
            if owner == id {
                // SAFETY: the number is used only as the key of an epoll entry. If the subscriber closed it without
                // `remove`, the kernel answers EBADF or ENOENT; if another subscriber registered it since, that one
                // is its owner here.
                let _ = epoll::delete(epoll, unsafe { BorrowedFd::borrow_raw(fd) });
            }
            owner != id
        });
    }

    fn timeout(&self) -> Option<Timespec> {
        let first = self.subscribers.values().filter_map(|device| device.deadline()).min()?;
        let left = first.saturating_duration_since(Instant::now());
        // One nanosecond late rather than a busy turn early.
        Timespec::try_from(left + Duration::from_nanos(1)).ok()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for (&subscriber, device) in &mut self.subscribers {
            if device.deadline().is_some_and(|deadline| deadline <= now) {
                let owners = &mut self.owners;
                device.expired(&mut Registrar { epoll: self.epoll.as_fd(), owners, subscriber });
            }
        }
    }
}

/// vmm-sys-util's `EventFd` knows only raw descriptors.
pub fn borrow(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is owned by `eventfd`, which the returned borrow keeps alive.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

#[cfg(test)]
mod tests;
