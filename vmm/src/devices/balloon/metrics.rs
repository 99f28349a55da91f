//! Counters of the balloon.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(super) struct BalloonMetrics {
    reports: AtomicU64,
    reported_bytes: AtomicU64,
    errors: AtomicU64,
}

impl BalloonMetrics {
    pub(super) fn report(&self) {
        self.reports.fetch_add(1, Relaxed);
    }

    pub(super) fn given_back(&self, bytes: u64) {
        self.reported_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("reports", self.reports.load(Relaxed)),
            ("reported_bytes", self.reported_bytes.load(Relaxed)),
            ("errors", self.errors.load(Relaxed)),
        ]
    }
}
