//! Where console bytes go: a ring of the last ones, and a log; and what they say about the guest's end.
//!
//! Written by the device loop and, before hvc0 exists, by the vCPU; read once by whoever reports the end. Nobody ever
//! waits for the log: what it does not take at once is counted and dropped.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use bulkhead_protocol::limits::CONSOLE_TAIL;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::metrics::ConsoleMetrics;

/// What Linux prints when it panics, whatever the reason.
const PANIC: &str = "Kernel panic - not syncing";
/// Bytes written to the log in the life of a VM: a guest must not fill the host's disk.
const LOG_MAX: u64 = 16 << 20;
/// What a pipe takes at once when poll says that it is writable (PIPE_BUF).
const LOG_CHUNK: usize = 4096;

#[derive(Debug, Default)]
pub struct Output {
    /// At most `CONSOLE_TAIL` bytes.
    tail: Mutex<VecDeque<u8>>,
    log: OnceLock<OwnedFd>,
    metrics: ConsoleMetrics,
}

impl Output {
    /// Copies what is said from now on to `log`. Only the first call has an effect.
    pub(super) fn log_to(&self, log: OwnedFd) {
        let _ = self.log.set(log);
    }

    pub(super) fn say(&self, bytes: &[u8]) {
        self.metrics.taken(bytes.len());
        self.keep(bytes);
        if let Some(log) = self.log.get() {
            for chunk in bytes.chunks(LOG_CHUNK) {
                let written = if self.metrics.logged() < LOG_MAX { write_now(log, chunk) } else { 0 };
                self.metrics.log(written, chunk.len() - written);
            }
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let mut tail = self.lock();
        let bytes = bytes.get(bytes.len().saturating_sub(CONSOLE_TAIL)..).unwrap_or(bytes);
        let over = (tail.len() + bytes.len()).saturating_sub(CONSOLE_TAIL);
        let over = over.min(tail.len());
        tail.drain(..over);
        tail.extend(bytes);
    }

    /// The tail as text, which fits into a packet also when written as JSON: control characters other than line ends,
    /// of which JSON makes six bytes each, are left out, and so is what is not UTF-8.
    pub fn tail(&self) -> String {
        let bytes: Vec<u8> = self.lock().iter().copied().collect();
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.extend(chunk.valid().chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()));
        }
        text
    }

    /// Whether the guest kernel reported its own death.
    pub fn panicked(&self) -> bool {
        self.tail().contains(PANIC)
    }

    pub(super) fn metrics(&self) -> &ConsoleMetrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what the log takes without waiting.
fn write_now(log: &OwnedFd, chunk: &[u8]) -> usize {
    let mut ready = [PollFd::from_borrowed_fd(log.as_fd(), PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let polled = poll(&mut ready, Some(&now));
    let writable = polled.is_ok() && ready.iter().all(|log| log.revents() == PollFlags::OUT);
    if writable { rustix::io::write(log, chunk).unwrap_or(0) } else { 0 }
}
