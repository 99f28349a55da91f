//! Counters of the memory device, beside the sizes that its room knows.

use super::room::Reply;
use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct MemMetrics {
    requests: Counter,
    refused: Counter,
    errors: Counter,
}

impl MemMetrics {
    pub(super) fn count(&self, reply: Reply) {
        self.requests.increment();
        match reply {
            Reply::Ack | Reply::State(_) => {}
            Reply::Nack | Reply::Busy | Reply::Error => {
                self.refused.increment();
            }
        }
    }

    pub(super) fn error(&self) {
        self.errors.increment();
    }

    pub(super) fn values(&self) -> [(&'static str, u64); 3] {
        [("requests", self.requests.get()), ("refused", self.refused.get()), ("errors", self.errors.get())]
    }
}
