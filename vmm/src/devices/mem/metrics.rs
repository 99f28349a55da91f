//! Counters of the memory device, beside the sizes that its room knows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::room::Reply;

#[derive(Debug, Default)]
pub(super) struct MemMetrics {
    requests: AtomicU64,
    refused: AtomicU64,
    errors: AtomicU64,
}

impl MemMetrics {
    pub(super) fn count(&self, reply: Reply) {
        self.requests.fetch_add(1, Relaxed);
        match reply {
            Reply::Ack | Reply::State(_) => {}
            Reply::Nack | Reply::Busy | Reply::Error => {
                self.refused.fetch_add(1, Relaxed);
            }
        }
    }

    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn values(&self) -> [(&'static str, u64); 3] {
        [
            ("requests", self.requests.load(Relaxed)),
            ("refused", self.refused.load(Relaxed)),
            ("errors", self.errors.load(Relaxed)),
        ]
    }
}
