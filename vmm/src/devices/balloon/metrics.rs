//! Counters of the balloon.

use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct BalloonMetrics {
    reports: Counter,
    reported_bytes: Counter,
    errors: Counter,
}

impl BalloonMetrics {
    pub(super) fn report(&self) {
        self.reports.increment();
    }

    pub(super) fn given_back(&self, bytes: u64) {
        self.reported_bytes.add(bytes);
    }

    pub(super) fn error(&self) {
        self.errors.increment();
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("reports", self.reports.get()),
            ("reported_bytes", self.reported_bytes.get()),
            ("errors", self.errors.get()),
        ]
    }
}
