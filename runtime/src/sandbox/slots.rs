//! Where each device sits. The agent finds devices by type, so the numbers matter to nobody else.

use bulkhead_protocol::{limits, vmm::Slot};

pub(crate) const CONSOLE: Slot = Slot(0);
pub(crate) const VSOCK: Slot = Slot(1);
pub(crate) const FS: Slot = Slot(2);
pub(crate) const RNG: Slot = Slot(3);
pub(crate) const BALLOON: Slot = Slot(4);
pub(crate) const MEM: Slot = Slot(5);

/// Network devices of one pod.
pub(crate) const NICS: u8 = 8;
const FIRST_NIC: u8 = limits::SLOTS as u8 - NICS;

/// The slot of the `n`th network device; none when all are taken.
pub(crate) fn nic(n: u8) -> Option<Slot> {
    (n < NICS).then(|| Slot(FIRST_NIC + n))
}
