//! What sits in which virtio-mmio slot of a machine.
//!
//!   0 console · 1 vsock · 2 fs · 3 rng · 4 balloon · 5 mem · 6 to 9 disks · 10 to 17 networks
//!
//! The server fills the slots, and the agent binds what it is told to; the agent finds devices by their type, so a number
//! matters to nobody else.

use crate::{limits::SLOTS, vmm::Slot};

pub const CONSOLE: Slot = Slot(0);
pub const VSOCK: Slot = Slot(1);
pub const FS: Slot = Slot(2);
pub const RNG: Slot = Slot(3);
pub const BALLOON: Slot = Slot(4);
pub const MEM: Slot = Slot(5);

/// Disks of one pod.
pub const DISKS: u8 = 4;
const FIRST_DISK: u8 = MEM.0 + 1;

/// The slot of disk number `n`, counted from 0; `None` beyond the last.
pub fn disk(n: u8) -> Option<Slot> {
    (n < DISKS).then(|| Slot(FIRST_DISK + n))
}

/// Network devices of one pod.
pub const NICS: u8 = 8;
const FIRST_NIC: u8 = SLOTS as u8 - NICS;

/// The slot of the `n`th network device, counted from 0; `None` when all are taken.
pub fn nic(n: u8) -> Option<Slot> {
    (n < NICS).then(|| Slot(FIRST_NIC + n))
}

#[cfg(test)]
mod tests;
