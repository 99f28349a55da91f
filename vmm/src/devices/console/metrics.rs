//! Counters of the console.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(super) struct ConsoleMetrics {
    bytes: AtomicU64,
    logged: AtomicU64,
    log_dropped: AtomicU64,
    errors: AtomicU64,
}

impl ConsoleMetrics {
    pub(super) fn taken(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn log(&self, written: usize, dropped: usize) {
        self.logged.fetch_add(written as u64, Relaxed);
        self.log_dropped.fetch_add(dropped as u64, Relaxed);
    }

    pub(super) fn logged(&self) -> u64 {
        self.logged.load(Relaxed)
    }

    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("bytes", self.bytes.load(Relaxed)),
            ("logged", self.logged()),
            ("log_dropped", self.log_dropped.load(Relaxed)),
            ("errors", self.errors.load(Relaxed)),
        ]
    }
}
