//! Counters of the console.

use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct ConsoleMetrics {
    bytes: Counter,
    logged: Counter,
    log_dropped: Counter,
    errors: Counter,
}

impl ConsoleMetrics {
    pub(super) fn taken(&self, bytes: usize) {
        self.bytes.add(bytes as u64);
    }

    pub(super) fn log(&self, written: usize, dropped: usize) {
        self.logged.add(written as u64);
        self.log_dropped.add(dropped as u64);
    }

    pub(super) fn logged(&self) -> u64 {
        self.logged.get()
    }

    pub(super) fn error(&self) {
        self.errors.increment();
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("bytes", self.bytes.get()),
            ("logged", self.logged()),
            ("log_dropped", self.log_dropped.get()),
            ("errors", self.errors.get()),
        ]
    }
}
