//! The last bytes of the console, and what they say about the guest's end.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bulkhead_protocol::limits::CONSOLE_TAIL;

/// What Linux prints when it panics, whatever the reason.
const PANIC: &str = "Kernel panic - not syncing";

/// A ring buffer of `CONSOLE_TAIL` bytes. Written by the device loop, read once by whoever reports the end.
#[derive(Debug, Default)]
pub struct Tail(Mutex<VecDeque<u8>>);

impl Tail {
    pub fn push(&self, bytes: &[u8]) {
        let mut ring = self.lock();
        let bytes = bytes.get(bytes.len().saturating_sub(CONSOLE_TAIL)..).unwrap_or(bytes);
        let over = (ring.len() + bytes.len()).saturating_sub(CONSOLE_TAIL);
        let over = over.min(ring.len());
        ring.drain(..over);
        ring.extend(bytes);
    }

    /// At most `CONSOLE_TAIL` bytes of text, also when written as JSON: control characters other than line ends,
    /// of which JSON makes six bytes each, are left out, and so is what is not UTF-8.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.lock().iter().copied().collect();
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.extend(chunk.valid().chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()));
        }
        text
    }

    /// Whether the guest kernel reported its own death.
    pub fn panicked(&self) -> bool {
        self.text().contains(PANIC)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
