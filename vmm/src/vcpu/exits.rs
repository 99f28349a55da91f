//! VM exits that reached this process, counted over all vCPUs.

use crate::counter::Counter;

#[derive(Debug, Default)]
pub struct Exits {
    pub(super) mmio_reads: Counter,
    pub(super) mmio_writes: Counter,
    pub(super) port_reads: Counter,
    pub(super) port_writes: Counter,
    pub(super) interrupted: Counter,
    pub(super) bus_locks: Counter,
}

impl Exits {
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("mmio_reads", self.mmio_reads.get()),
            ("mmio_writes", self.mmio_writes.get()),
            ("port_reads", self.port_reads.get()),
            ("port_writes", self.port_writes.get()),
            ("interrupted", self.interrupted.get()),
            ("bus_locks", self.bus_locks.get()),
        ]
    }
}
