//! The guest's clock follows the host's: corrected when the guest is up, every 30 s, when the host's clock is set or the
//! host wakes up, and before a paused container goes on.
//!
//!   host's clock set ─timerfd─┐
//!   every PERIOD ─────────────┼─▶ `follow`, one task ─▶ read the guest's clock a few times ─▶ move it by the difference
//!   a container goes on ──────┘
//!
//! How NTP does it: half of the round trip is how wrong a reading can be, the shortest of a few is the best, and a
//! difference that is not larger than that says nothing. The correction is a difference too, so it may take its time.
//! One task makes all of them: two at once would both correct the same error. What the guest answers moves the guest's
//! clock and nothing else; a guest that lies, or sets its clock itself, has a wrong clock until the next time.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use bulkhead_protocol::limits;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use super::agent::{Agent, AgentError};

/// A crystal is off by some 20 ppm, so by 0.6 ms in this time; a slew makes up for 15 ms.
const PERIOD: Duration = Duration::from_secs(30);
/// For the guest to answer one question; it is asked again after `PERIOD`.
const ANSWER: Duration = Duration::from_secs(5);
/// For a whole correction, to whoever waits for one.
const CORRECTED: Duration = Duration::from_secs(10);
/// Readings for one correction, at most.
const READINGS: usize = 5;
/// A reading with a shorter round trip needs no other.
const SHORT: i128 = 1_000_000;
/// After a step the clock is read again, for it may have been found by a bad reading.
const STEPS: usize = 3;

/// The task that corrects the clock of one guest; it ends with the last of these.
#[derive(Debug, Clone)]
pub(crate) struct Clock(mpsc::Sender<oneshot::Sender<()>>);

impl Clock {
    /// Corrects the clock now and from now on.
    pub(crate) fn follow(agent: Agent) -> Self {
        let host = HostClock::watch();
        if let Err(error) = &host {
            // Without it the next regular correction has to do.
            crate::log::note(&format!("watch the host's clock: {error}"));
        }
        let (orders, queue) = mpsc::channel(1);
        tokio::spawn(follow(agent, host.ok(), queue));
        Self(orders)
    }

    /// Returns when the clock was corrected after this call, or cannot be in time.
    pub(crate) async fn correct(&self) {
        let (done, corrected) = oneshot::channel();
        let _ = timeout(CORRECTED, async {
            if self.0.send(done).await.is_ok() {
                let _ = corrected.await;
            }
        })
        .await;
    }
}

async fn follow(agent: Agent, host: Option<HostClock>, mut orders: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut regular = interval(PERIOD);
    regular.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let order = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => Some(order),
                None => return,
            },
            () = HostClock::was_set(host.as_ref()) => None,
            _ = regular.tick() => None,
        };
        // A guest that does not answer, or may not set its clock, keeps the wrong one: no reason to end it.
        let _ = correct(&agent).await;
        if let Some(order) = order {
            let _ = order.send(());
        }
    }
}

/// In nanoseconds: what the guest's clock lacks, and how wrong that can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    behind: i128,
    unsure: i128,
}

impl Reading {
    /// `before` and `after` are the host's clocks around the moment in which the guest's was `guest`. `None` when the
    /// host's was set meanwhile.
    fn of(before: HostTime, guest: i128, after: HostTime) -> Option<Self> {
        let round_trip = after.monotonic - before.monotonic;
        let set = (after.real - before.real) - round_trip;
        // What slewing and the time between the two readings of the host account for is far below.
        let unset = set.unsigned_abs() <= (SHORT + round_trip / 100).unsigned_abs();
        unset.then(|| Self { behind: before.real + round_trip / 2 - guest, unsure: round_trip / 2 })
    }

    /// What to move the guest's clock by; `None` when the reading is no better than the clock.
    fn correction(self) -> Option<i64> {
        let known = self.behind.unsigned_abs() > self.unsure.unsigned_abs();
        let most = if self.behind < 0 { i64::MIN } else { i64::MAX };
        known.then(|| i64::try_from(self.behind).unwrap_or(most))
    }
}

async fn correct(agent: &Agent) -> Result<(), AgentError> {
    for _ in 0..STEPS {
        let Some(correction) = best_reading(agent).await?.and_then(Reading::correction) else {
            return Ok(());
        };
        agent.adjust_time(correction, ANSWER).await?;
        if u128::from(correction.unsigned_abs()) < limits::CLOCK_STEP.as_nanos() {
            return Ok(());
        }
    }
    Ok(())
}

async fn best_reading(agent: &Agent) -> Result<Option<Reading>, AgentError> {
    let mut best: Option<Reading> = None;
    for _ in 0..READINGS {
        let before = HostTime::now();
        let guest = agent.time(ANSWER).await?;
        let Some(reading) = Reading::of(before, guest, HostTime::now()) else { continue };
        if best.is_none_or(|best| reading.unsure < best.unsure) {
            best = Some(reading);
        }
        if reading.unsure * 2 < SHORT {
            break;
        }
    }
    Ok(best)
}

/// Both clocks of the host at one moment, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct HostTime {
    real: i128,
    monotonic: i128,
}

impl HostTime {
    fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        Self { real: read(ClockId::Realtime), monotonic: read(ClockId::Monotonic) }
    }
}

/// Tells when the host's CLOCK_REALTIME is set, or the host wakes up: a timer that never expires is cancelled by that
/// (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET), and read again it waits for the next time.
#[derive(Debug)]
struct HostClock(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(OwnedFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl HostClock {
    fn watch() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
        let timer = Timer(unsafe { OwnedFd::from_raw_fd(fd) });
        let never = libc::timespec { tv_sec: libc::time_t::MAX, tv_nsec: 0 };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_value: never, it_interval: once };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        // SAFETY: `setting` is a valid itimerspec that outlives the call; no old one is asked for.
        let set = unsafe { libc::timerfd_settime(fd, flags, &raw const setting, std::ptr::null_mut()) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a `Timer` stands for one descriptor that is open until it is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        watched.map(Self).map_err(|error| error.into_parts().1)
    }

    /// Never without a watch.
    async fn was_set(host: Option<&Self>) {
        let Some(Self(timer)) = host else { return std::future::pending().await };
        let read = |timer: &Timer| match rustix::io::read(&timer.0, &mut [0; 8]) {
            // ECANCELED is the news.
            Ok(_) | Err(rustix::io::Errno::CANCELED) => Ok(()),
            Err(errno) => Err(io::Error::from(errno)),
        };
        if timer.async_io(Interest::READABLE, read).await.is_err() {
            // The runtime ends; it must not be asked again and again.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
