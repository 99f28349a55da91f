//! A driver without a guest: rings in guest memory as any guest could write them, for one device.
//!
//!   target ──`Ring::offer`──▶ rings in `Memory` ──kick──▶ device (its own threads) ──interrupt──▶ `Ring::wait`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use bulkhead_vmm::{
    devices::{
        interrupt::Interrupt,
        queue::{ActiveQueue, QueueSetup},
    },
    event_loop::borrow,
    memory::Memory,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A device that takes longer for one request is stuck.
const DEADLINE: Duration = Duration::from_secs(20);
/// The bytes of a ring's three parts: descriptors, available ring and used ring, 4 KiB each.
pub const RINGS: u64 = 0x3000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A descriptor as a guest may write it: fields that make sense, and others.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Descriptor {
    pub address: Place,
    pub length: Length,
    pub flags: u8,
    pub next: u8,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Place {
    /// In the target's buffers.
    Buffer(u16),
    /// In the rings themselves.
    Rings(u16),
    Anywhere(u64),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Length {
    Short(u16),
    Any(u32),
}

/// One buffer of a well-formed chain.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

/// The driver's side of one queue.
#[derive(Debug)]
pub struct Ring {
    memory: Memory,
    interrupt: Arc<Interrupt>,
    kick: Arc<EventFd>,
    base: u64,
    size: u16,
    descriptor: u16,
    available: u16,
    used: u16,
}

impl Ring {
    /// With its three parts from `base`, which is not 0.
    pub fn new(memory: &Memory, interrupt: &Arc<Interrupt>, base: u64, size: u16) -> Self {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK).expect("an eventfd"));
        let (memory, interrupt) = (memory.clone(), Arc::clone(interrupt));
        Self { memory, interrupt, kick, base, size, descriptor: 0, available: 0, used: 0 }
    }

    /// The device's side.
    pub fn activate(&self, index: usize) -> ActiveQueue {
        let setup = QueueSetup {
            size: self.size.into(),
            ready: true,
            descriptors: self.base,
            avail: self.base + 0x1000,
            used: self.base + 0x2000,
        };
        setup.activate(index, self.size, false, Arc::clone(&self.kick), &*self.memory).expect("a sound queue")
    }

    fn put<T: ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).expect("in guest memory");
    }

    fn get<T: ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).expect("in guest memory")
    }

    fn descriptor(&self, at: u16, address: u64, length: u32, flags: u16, next: u16) {
        let entry = self.base + 16 * u64::from(at % self.size);
        self.put(entry, address);
        self.put(entry + 8, length);
        self.put(entry + 12, flags);
        self.put(entry + 14, next);
    }

    /// Offers a chain as an honest driver does. The device looks when `kick` says so.
    pub fn offer(&mut self, chain: &[Buffer]) {
        let head = self.descriptor;
        for (number, buffer) in chain.iter().enumerate() {
            let next = (self.descriptor + 1) % self.size;
            let more = if number + 1 < chain.len() { NEXT } else { 0 };
            let flags = more | if buffer.writable { WRITE } else { 0 };
            self.descriptor(self.descriptor, buffer.address, buffer.length, flags, next);
            self.descriptor = next;
        }
        self.publish(head);
    }

    /// Writes descriptors as they come, from the table's start, and offers a head, which may be out of range.
    pub fn offer_raw(&mut self, descriptors: &[Descriptor], head: u16, buffers: u64) {
        for (number, descriptor) in descriptors.iter().take(self.size.into()).enumerate() {
            let address = match descriptor.address {
                Place::Buffer(offset) => buffers + u64::from(offset),
                Place::Rings(offset) => self.base + u64::from(offset) % RINGS,
                Place::Anywhere(address) => address,
            };
            let length = match descriptor.length {
                Length::Short(length) => length.into(),
                Length::Any(length) => length,
            };
            self.descriptor(number as u16, address, length, descriptor.flags.into(), descriptor.next.into());
        }
        self.publish(head);
    }

    fn publish(&mut self, head: u16) {
        self.put(self.base + 0x1000 + 4 + 2 * u64::from(self.available % self.size), head);
        self.available = self.available.wrapping_add(1);
        self.put(self.base + 0x1000 + 2, self.available);
    }

    pub fn kick(&self) {
        let _ = self.kick.write(1);
    }

    /// Waits until the device has returned all that was offered; false if it asks for a reset instead.
    pub fn wait(&self) -> bool {
        let start = Instant::now();
        loop {
            if self.interrupt.failed() {
                return false;
            }
            if self.returned() == self.available {
                return true;
            }
            assert!(start.elapsed() < DEADLINE, "the device is stuck");
            self.interrupted(Duration::from_secs(1));
        }
    }

    /// Gives the device time to look at rings that need not tell when it has.
    pub fn look(&self) {
        self.interrupted(Duration::from_millis(20));
    }

    /// Waits for an interrupt, so long at most.
    fn interrupted(&self, limit: Duration) {
        let irq = self.interrupt.irqfd();
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(&borrow(irq), PollFlags::IN)], Some(&limit));
        let _ = irq.read();
    }

    /// The ring's used index. A device without a place to write never moves it.
    fn returned(&self) -> u16 {
        self.get(self.base + 0x2000 + 2)
    }

    /// What came back since the last call: heads and written lengths. At most one ring's worth.
    pub fn take_used(&mut self) -> Vec<(u32, u32)> {
        let mut chains = Vec::new();
        let returned = self.returned();
        while self.used != returned && chains.len() < self.size.into() {
            let entry = self.base + 0x2000 + 4 + 8 * u64::from(self.used % self.size);
            chains.push((self.get(entry), self.get(entry + 4)));
            self.used = self.used.wrapping_add(1);
        }
        chains
    }
}
