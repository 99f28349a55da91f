//! The driver's side of one queue, for unit tests: rings in guest memory, written as a guest would.
//!
//!   `Ring::new(memory, at, size)` ─▶ `offer(chain)` ─▶ device ─▶ `used()`

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::queue::{ActiveQueue, QueueSetup};
use crate::memory::Memory;

/// One buffer of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) writable: bool,
}

#[derive(Debug)]
pub(crate) struct Ring {
    memory: Memory,
    pub(crate) setup: QueueSetup,
    size: u16,
    next_descriptor: u16,
    offered: u16,
    taken: u16,
}

impl Ring {
    /// Rings of `size` entries from `at`: descriptors, 4 KiB on the available ring, 4 KiB on the used ring.
    pub(crate) fn new(memory: &Memory, at: u64, size: u16) -> Self {
        let setup = QueueSetup {
            size: size.into(),
            ready: true,
            descriptors: at,
            avail: at + 0x1000,
            used: at + 0x2000,
        };
        Self { memory: memory.clone(), setup, size, next_descriptor: 0, offered: 0, taken: 0 }
    }

    pub(crate) fn activate(&self) -> ActiveQueue {
        self.activate_as(0)
    }

    /// As the queue with that number.
    pub(crate) fn activate_as(&self, index: usize) -> ActiveQueue {
        self.activate_with_kick(index).0
    }

    /// The queue, and the doorbell that the driver rings.
    pub(crate) fn activate_with_kick(&self, index: usize) -> (ActiveQueue, Arc<EventFd>) {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let queue = self.setup.activate(index, self.size, false, Arc::clone(&kick), &*self.memory).unwrap();
        (queue, kick)
    }

    /// Offers a chain of buffers; returns its head.
    pub(crate) fn offer(&mut self, chain: &[Buffer]) -> u16 {
        let head = self.next_descriptor % self.size;
        for (index, buffer) in chain.iter().enumerate() {
            let this = self.next_descriptor % self.size;
            self.next_descriptor += 1;
            let last = index + 1 == chain.len();
            let flags = u16::from(!last) | u16::from(buffer.writable) << 1;
            let at = self.setup.descriptors + 16 * u64::from(this);
            self.put(at, buffer.address);
            self.put(at + 8, buffer.len);
            self.put(at + 12, flags);
            self.put(at + 14, self.next_descriptor % self.size);
        }
        self.offer_head(head);
        head
    }

    /// Puts a head on the available ring, whatever is behind it.
    pub(crate) fn offer_head(&mut self, head: u16) {
        self.put(self.setup.avail + 4 + 2 * u64::from(self.offered % self.size), head);
        self.offered += 1;
        self.put(self.setup.avail + 2, self.offered);
    }

    /// Chains that were offered and not seen back.
    pub(crate) fn outstanding(&self) -> u16 {
        self.offered - self.taken
    }

    /// The next used entry: head and length.
    pub(crate) fn used(&mut self) -> Option<(u32, u32)> {
        let index: u16 = self.memory.read_obj(GuestAddress(self.setup.used + 2)).unwrap();
        if index == self.taken {
            return None;
        }
        let at = GuestAddress(self.setup.used + 4 + 8 * u64::from(self.taken % self.size));
        self.taken += 1;
        let [head, len]: [u32; 2] = self.memory.read_obj(at).unwrap();
        Some((head, len))
    }

    pub(crate) fn put<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }
}
