//! Counters of the entropy device.

use std::io;

use crate::counter::Counter;

#[derive(Debug, Default)]
pub(super) struct RngMetrics {
    requests: Counter,
    bytes: Counter,
    errors: Counter,
}

impl RngMetrics {
    pub(super) fn count(&self, filled: &io::Result<u32>) {
        self.requests.increment();
        match filled {
            Ok(bytes) => self.bytes.add(u64::from(*bytes)),
            Err(_) => self.errors.increment(),
        };
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        vec![("requests", self.requests.get()), ("bytes", self.bytes.get()), ("errors", self.errors.get())]
    }
}
