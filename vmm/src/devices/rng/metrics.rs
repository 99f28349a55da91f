//! Counters of the entropy device.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

#[derive(Debug, Default)]
pub(super) struct RngMetrics {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl RngMetrics {
    pub(super) fn count(&self, filled: &io::Result<u32>) {
        self.requests.fetch_add(1, Relaxed);
        match filled {
            Ok(bytes) => self.bytes.fetch_add(u64::from(*bytes), Relaxed),
            Err(_) => self.errors.fetch_add(1, Relaxed),
        };
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("requests", self.requests.load(Relaxed)),
            ("bytes", self.bytes.load(Relaxed)),
            ("errors", self.errors.load(Relaxed)),
        ]
    }
}
