//! Who else changes files that the guest keeps without asking: the guest is told that somebody did.
//!
//!   `passthrough` ─mark─▶ `Group` ─events─▶ the watcher ─▶ a change of config space ─▶ the guest's kernel asks anew for all it knows
//!
//! What the guest changes comes back as events too, and says nothing new. So the watcher rests after each look: many such events
//! are one wake-up then. The guest hears of a change after that rest at the latest.

mod group;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub(super) use self::group::{Group, Place};
use crate::{
    confine::Kind,
    devices::interrupt::Interrupt,
    event_loop::borrow,
    threads::{ThreadError, confined, unprepared},
};

/// How long the watcher looks away: 20 ms.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

#[derive(Debug, thiserror::Error)]
pub enum WatcherError {
    #[error("create the event that ends the watcher of files")]
    Event { source: io::Error },
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// The thread; dropping it ends it.
#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Of an activated device.
    interrupt: Mutex<Option<Arc<Interrupt>>>,
    /// Never read, so once written it ends all waits.
    stop: EventFd,
}

/// `None` where the host gives none to a program without privileges. Then nothing is watched, and the guest asks for a rootfs as for
/// a volume.
pub(super) fn group() -> Option<Arc<Group>> {
    Group::new()
        .inspect_err(|error| crate::log::line(&format_args!("nobody watches files for the guest: {error}")))
        .ok()
        .map(Arc::new)
}

impl Watcher {
    /// Returns when the thread is confined.
    ///
    /// # Errors
    /// The thread could not be started or confined.
    pub(super) fn spawn(group: Arc<Group>) -> Result<Self, WatcherError> {
        let stop =
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| WatcherError::Event { source })?;
        let shared = Arc::new(Shared { interrupt: Mutex::default(), stop });
        let watching = Arc::clone(&shared);
        // It needs no more than those who wait for locks.
        let (thread, enters) = confined(Kind::Locks, "watch", unprepared, move |()| watching.watch(&group))?;
        let watcher = Self { shared, thread: Some(thread) };
        enters.wait()?;
        Ok(watcher)
    }

    /// Whom to tell: nobody while the device is not activated.
    pub(super) fn tell(&self, interrupt: Option<Arc<Interrupt>>) {
        *self.shared.interrupt() = interrupt;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The counter is 0 or 1, never near its maximum.
        let _ = self.shared.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn interrupt(&self) -> MutexGuard<'_, Option<Arc<Interrupt>>> {
        // Every change is one assignment.
        self.interrupt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, group: &Group) {
        let stop = || PollFd::from_borrowed_fd(borrow(&self.stop), PollFlags::IN);
        loop {
            let mut events = [stop(), PollFd::new(group, PollFlags::IN)];
            match poll(&mut events, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Impossible with descriptors of our own. Nobody may take for watched what is not.
                Err(_) => std::process::abort(),
            }
            let [stopped, _] = &events;
            if !stopped.revents().is_empty() {
                return;
            }
            if group.others_changed()
                && let Some(interrupt) = &*self.interrupt()
            {
                interrupt.signal_config();
            }
            let _ = poll(&mut [stop()], Some(&REST));
        }
    }
}

#[cfg(test)]
mod tests;
