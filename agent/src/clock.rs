//! The guest's CLOCK_REALTIME, which the host keeps right: it reads it, and says by how much to move it.
//!
//! A difference below `limits::CLOCK_STEP` is slewed (adjtime(3), 500 ppm: 30 ms a minute), so that programs see time
//! go on; a larger one is stepped. Both are relative to the clock as it is when the request is served.

use std::io;

use bulkhead_protocol::limits;
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    #[error("step the clock by {nanoseconds} ns")]
    Step { nanoseconds: i64, source: io::Error },
    #[error("slew the clock by {nanoseconds} ns")]
    Slew { nanoseconds: i64, source: io::Error },
}

/// How a difference is made up for, in the kernel's own units.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Whole seconds, rounded down, and the rest in nanoseconds.
    Step {
        seconds: i64,
        nanoseconds: i64,
    },
    Slew {
        microseconds: i64,
    },
}

impl Change {
    fn of(nanoseconds: i64) -> Self {
        const SECOND: i64 = 1_000_000_000;
        if u128::from(nanoseconds.unsigned_abs()) < limits::CLOCK_STEP.as_nanos() {
            return Self::Slew { microseconds: nanoseconds / 1000 };
        }
        let (seconds, nanoseconds) = (nanoseconds.div_euclid(SECOND), nanoseconds.rem_euclid(SECOND));
        Self::Step { seconds, nanoseconds }
    }
}

/// Seconds since 1970 and nanoseconds below a second.
pub fn now() -> (i64, u32) {
    let now = clock_gettime(ClockId::Realtime);
    // The kernel's nanoseconds are always below a second.
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Moves the clock by a difference; what is left of an earlier slew is forgotten.
///
/// # Errors
/// The kernel refuses, for instance a step to before 1970.
pub fn adjust(nanoseconds: i64) -> Result<(), ClockError> {
    let slew = |microseconds| adjtimex(libc::ADJ_OFFSET_SINGLESHOT, 0, microseconds);
    match Change::of(nanoseconds) {
        Change::Slew { microseconds } => {
            slew(microseconds).map_err(|source| ClockError::Slew { nanoseconds, source })
        }
        Change::Step { seconds, nanoseconds: rest } => slew(0)
            .and_then(|()| adjtimex(libc::ADJ_SETOFFSET | libc::ADJ_NANO, seconds, rest))
            .map_err(|source| ClockError::Step { nanoseconds, source }),
    }
}

/// adjtimex(2): `seconds` and `fraction` are the time of a step, `fraction` alone the offset of a slew.
fn adjtimex(modes: libc::c_uint, seconds: i64, fraction: i64) -> io::Result<()> {
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = modes;
    change.offset = fraction;
    change.time.tv_sec = seconds;
    // With ADJ_NANO these are nanoseconds.
    change.time.tv_usec = fraction;
    // SAFETY: `change` is a timex that outlives the call, which reads and writes it.
    let state = unsafe { libc::adjtimex(&raw mut change) };
    // Any other answer is the state of the clock; "not synchronised by NTP" is one.
    if state == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
