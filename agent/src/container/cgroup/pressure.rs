//! All containers together stay below the memory that the guest has, until the host has given it more.
//!
//!   memory.high of `bulkhead`, a little below MemTotal ─▶ who goes beyond reclaims, then waits: nobody is killed
//!     ─memory.events.local─▶ Usage ─Judge─▶ pressed: the host is asked for more, and memory.high rises with it
//!
//! What can be reclaimed is no pressure: page cache fills any memory in the end. It is only when it is read again and again,
//! with programs waiting for it, and up to a bound. Without more to come memory.high is lifted, and Linux does as it does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bulkhead_protocol::limits;
use bulkhead_sys::meminfo;
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{PARENT, watch::Watch};
use crate::boot::CGROUP;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Between memory.high and all memory: for the kernel and this agent, for what comes in one go before somebody is made to
/// wait, and for the records of the memory that comes.
const RESERVE: u64 = 48 * MIB;
/// One part in this many is added to that.
const RESERVE_SHARE: u64 = 32;
/// The kernel tells of memory.high a hundred times a second at most; a look takes less than a millisecond.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Over which reading files again is judged.
const WINDOW: Duration = Duration::from_millis(500);
/// Of a window, in which some program waited for memory: one part in this many.
const STALLED_SHARE: u32 = 10;
/// Of memory.high, that was read again in a window: one part in this many.
const REFAULTS_SHARE: u64 = 64;
/// Files may have this much in any machine, or as much as programs have.
const CACHE: u64 = 1024 * MIB;

#[derive(Debug, thiserror::Error)]
pub enum PressureError {
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("set {} to {value}", .path.display())]
    Hold { path: PathBuf, value: String, source: io::Error },
    #[error("watch {}", .path.display())]
    Watch { path: PathBuf, source: io::Error },
}

/// What all containers of the guest use.
#[derive(Debug)]
pub struct Pressure {
    cgroup: PathBuf,
    meminfo: PathBuf,
    /// Counts the calls: a new one ends the one before.
    calls: watch::Sender<u64>,
    /// One call at a time sets memory.high.
    holds: Mutex<()>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self::below(CGROUP.as_ref())
    }
}

impl Pressure {
    /// `base` is the cgroup2 mount.
    fn below(base: &Path) -> Self {
        Self {
            cgroup: base.join(PARENT),
            meminfo: "/proc/meminfo".into(),
            calls: watch::Sender::new(0),
            holds: Mutex::default(),
        }
    }

    /// Holds the containers below the memory that there is now, and returns true when that is not enough for them; false
    /// after `limits::PRESSURE_POLL`, or when it is called again. Unless there is more to come, nothing holds them.
    ///
    /// # Errors
    /// A file of the cgroup cannot be read or written.
    pub async fn wait(&self, more: bool) -> Result<bool, PressureError> {
        self.calls.send_modify(|calls| *calls += 1);
        let mut calls = self.calls.subscribe();
        let high = self.hold(more).await?;
        let pressed = async {
            match high {
                Some(high) => self.pressed(high).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = calls.changed() => Ok(false),
            pressed = pressed => pressed.map(|()| true),
            () = sleep(limits::PRESSURE_POLL) => Ok(false),
        }
    }

    async fn hold(&self, more: bool) -> Result<Option<u64>, PressureError> {
        let _alone = self.holds.lock().await;
        let high = if more { Some(high(self.total()?)) } else { None };
        let path = self.cgroup.join("memory.high");
        let value = high.map_or_else(|| "max".to_owned(), |high| high.to_string());
        let file = path.clone();
        let text = value.clone();
        // Whoever sets it below what is used takes the rest back first, which may last.
        let written = spawn_blocking(move || fs::write(file, text)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => Ok(high),
            Err(source) => Err(PressureError::Hold { path, value, source }),
        }
    }

    async fn pressed(&self, high: u64) -> Result<(), PressureError> {
        // Its own, not those of a container that has a memory.high too.
        let path = self.cgroup.join("memory.events.local");
        let events =
            Watch::new(&path).map_err(|source| PressureError::Watch { path: path.clone(), source })?;
        let mut judge = Judge::new(high, self.usage()?);
        while !judge.pressed(self.usage()?) {
            sleep(LOOK_AGAIN).await;
            events.changed().await.map_err(|source| PressureError::Watch { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// In bytes; the kernel's image and its early tables are not in it.
    fn total(&self) -> Result<u64, PressureError> {
        Ok(meminfo::kib(&read(&self.meminfo)?, "MemTotal").unwrap_or(0) * 1024)
    }

    fn usage(&self) -> Result<Usage, PressureError> {
        let file = |name: &str| read(&self.cgroup.join(name));
        Ok(Usage::of(&file("memory.current")?, &file("memory.stat")?, &file("memory.pressure")?))
    }
}

fn read(path: &Path) -> Result<String, PressureError> {
    fs::read_to_string(path).map_err(|source| PressureError::Read { path: path.to_owned(), source })
}

/// memory.high in a guest with this much memory.
fn high(total: u64) -> u64 {
    total.saturating_sub(RESERVE + total / RESERVE_SHARE).max(total / 2)
}

/// One look.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Instant,
    /// Bytes that stay whatever the kernel does, for there is no swap.
    held: u64,
    /// Bytes that it can take back.
    cache: u64,
    /// Bytes of files that were taken back and read again, since the beginning.
    read_again: u64,
    /// How long some program has waited for memory, since the beginning.
    stalled: Duration,
}

impl Usage {
    fn of(current: &str, stat: &str, pressure: &str) -> Self {
        let current: u64 = current.trim().parse().unwrap_or(0);
        let stat = |name: &str| super::event(stat, name);
        let files = stat("file").saturating_sub(stat("shmem").max(stat("unevictable")));
        let cache = files.saturating_add(stat("slab_reclaimable")).min(current);
        let some = pressure.lines().find_map(|line| line.strip_prefix("some ")).unwrap_or_default();
        let stalled = some.split(' ').find_map(|part| part.strip_prefix("total=")?.parse().ok()).unwrap_or(0);
        Self {
            at: Instant::now(),
            held: current - cache,
            cache,
            read_again: stat("workingset_refault_file").saturating_mul(PAGE),
            stalled: Duration::from_micros(stalled),
        }
    }
}

/// Tells pressure from a cache that is full.
#[derive(Debug)]
struct Judge {
    high: u64,
    /// When the window began.
    begin: Usage,
}

impl Judge {
    fn new(high: u64, begin: Usage) -> Self {
        Self { high, begin }
    }

    fn pressed(&mut self, now: Usage) -> bool {
        if now.held >= self.high - self.high / 8 {
            return true;
        }
        let window = now.at - self.begin.at;
        if window < WINDOW {
            return false;
        }
        let read_again = now.read_again.saturating_sub(self.begin.read_again);
        let stalled = now.stalled.saturating_sub(self.begin.stalled);
        self.begin = now;
        now.cache < now.held.max(CACHE)
            && read_again >= self.high / REFAULTS_SHARE
            && stalled * STALLED_SHARE >= window
    }
}

#[cfg(test)]
mod tests;
