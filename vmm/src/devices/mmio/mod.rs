//! virtio-mmio version 2 on a fixed array of slots, all announced to the guest at boot.
//!
//!   vCPU exit ──▶ `Slots::read/write` ──▶ `Transport` (registers, status machine) ──▶ `VirtioDevice`
//!   kick ──▶ ioeventfd (no exit) ──▶ device worker ──▶ irqfd ──▶ guest
//!
//! An empty slot answers magic, version and device id 0, the placeholder that drivers skip (virtio 1.2, 4.2.3.1).
//! `plug` fills a slot and connects its eventfds, `unplug` resets the device and undoes that. One lock for each
//! slot, held while one register is served or one slot changes; a worker on the device loop never takes it.

mod error;
mod state;
mod status;
mod transport;

use std::{
    collections::BTreeSet,
    fmt::Debug,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bulkhead_protocol::{limits::SLOTS, vmm::Slot};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_VERSION};
use vmm_sys_util::eventfd::EventFd;

use self::transport::{MAGIC, Transport, VERSION};
pub use self::{
    error::{RestoreError, SlotError, StartError},
    state::TransportState,
};
use super::{device::VirtioDevice, interrupt::Interrupt};
use crate::memory::Memory;

/// Where slot 0 is: the start of the 32-bit hole that guest memory leaves free.
pub const BASE: u64 = 0xd000_0000;
/// Bytes of address space of one slot.
pub const SIZE: u64 = 0x1000;

/// Pins of the IOAPIC that KVM emulates.
pub const IOAPIC_PINS: u8 = 24;
/// The pins below belong to legacy devices: timer, keyboard, the second interrupt controller, two serial ports.
const FIRST_PIN: u32 = 5;
/// The pin of the real-time clock.
const CLOCK_PIN: u32 = 8;

// All pins that there are. Two slots must not share one: KVM raises and lowers the pin for each irqfd in a task of its own
// (`irqfd_inject`), and what one raises while the other has it raised is no edge. That interrupt is lost.
const _: () = assert!(FIRST_PIN as usize + SLOTS + 1 == IOAPIC_PINS as usize);

/// The IOAPIC pin of a slot, edge-triggered.
pub fn gsi(slot: Slot) -> u32 {
    let pin = FIRST_PIN + u32::from(slot.0);
    if pin < CLOCK_PIN { pin } else { pin + 1 }
}

/// The guest address of a slot's registers.
pub fn address(slot: Slot) -> u64 {
    BASE + SIZE * u64::from(slot.0)
}

/// Connects a slot's eventfds to KVM; the seam that lets the registers be tested without it.
pub trait Wires: Send + Sync + Debug {
    /// All or nothing.
    fn connect(&self, slot: Slot, interrupt: &Interrupt, kicks: &[Arc<EventFd>]) -> io::Result<()>;
    fn disconnect(&self, slot: Slot, interrupt: &Interrupt, kicks: &[Arc<EventFd>]);
}

/// The slot array.
#[derive(Debug)]
pub struct Slots {
    slots: [Mutex<Option<Transport>>; SLOTS],
    wires: Box<dyn Wires>,
    memory: Memory,
}

impl Slots {
    pub fn new(wires: Box<dyn Wires>, memory: Memory) -> Self {
        Self { slots: Default::default(), wires, memory }
    }

    /// Gives an empty slot a device.
    ///
    /// # Errors
    /// There is no such slot, it has a device, or KVM does not take its event descriptors. The device is dropped then.
    pub fn plug(&self, slot: Slot, device: Box<dyn VirtioDevice>) -> Result<(), SlotError> {
        let mut place = self.lock(slot)?;
        if place.is_some() {
            return Err(SlotError::Taken(slot));
        }
        let connect = |source| SlotError::Connect { slot, source };
        let transport = Transport::new(device).map_err(connect)?;
        self.wires.connect(slot, transport.interrupt(), transport.kicks()).map_err(connect)?;
        *place = Some(transport);
        Ok(())
    }

    /// Empties a slot. The device is reset and dropped before this returns.
    ///
    /// # Errors
    /// There is no such slot, or no device in it.
    pub fn unplug(&self, slot: Slot) -> Result<(), SlotError> {
        let mut place = self.lock(slot)?;
        let mut transport = place.take().ok_or(SlotError::Empty(slot))?;
        self.wires.disconnect(slot, transport.interrupt(), transport.kicks());
        transport.reset();
        Ok(())
    }

    /// Stops the device of a slot and returns what the driver has made of the slot, for a snapshot. A device that answers out
    /// of order (fs) must have answered all it took before.
    ///
    /// # Errors
    /// There is no such slot, or no device in it.
    pub fn state(&self, slot: Slot) -> Result<TransportState, SlotError> {
        self.lock(slot)?.as_mut().map(Transport::state).ok_or(SlotError::Empty(slot))
    }

    /// Gives a plugged device the state of another one of its kind, or its own: its guest finds no difference. The device
    /// serves again when this returns, if it did before.
    ///
    /// # Errors
    /// The state is none that a driver could have brought about on this device with this memory. The slot is reset then.
    pub fn restore(&self, slot: Slot, state: &TransportState) -> Result<(), RestoreError> {
        let mut place = self.lock(slot)?;
        let transport = place.as_mut().ok_or(SlotError::Empty(slot))?;
        transport.restore(state, &self.memory)
    }

    /// Raises the interrupt of each plugged device once. "Used buffers wait" always reads as set, so its driver looks.
    pub fn nudge(&self) {
        for place in &self.slots {
            let guard = place.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(transport) = &*guard {
                transport.interrupt().signal_queue();
            }
        }
    }

    /// Serves a read by a vCPU; false when no slot is there.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some((slot, offset)) = place(address) else { return false };
        data.fill(0);
        match self.lock(slot) {
            Ok(guard) => match &*guard {
                Some(transport) => transport.read(offset, data),
                None => placeholder(offset, data),
            },
            Err(_) => return false,
        }
        true
    }

    /// Serves a write by a vCPU; false when no slot is there.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some((slot, offset)) = place(address) else { return false };
        let Ok(mut guard) = self.lock(slot) else { return false };
        if let Some(transport) = &mut *guard {
            transport.write(offset, data, &self.memory);
        }
        true
    }

    /// Counters of all devices, named `<device>.<counter>`, or `<device><slot>.<counter>` from the second of a kind.
    pub fn metrics(&self) -> Vec<(String, u64)> {
        let mut metrics = Vec::new();
        let mut kinds = BTreeSet::new();
        for (index, place) in self.slots.iter().enumerate() {
            let guard = place.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(transport) = &*guard else { continue };
            let kind = transport.kind();
            let name = if kinds.insert(kind) { kind.to_owned() } else { format!("{kind}{index}") };
            metrics.extend(transport.metrics().map(|(counter, value)| (format!("{name}.{counter}"), value)));
        }
        metrics
    }

    fn lock(&self, slot: Slot) -> Result<MutexGuard<'_, Option<Transport>>, SlotError> {
        let place = self.slots.get(usize::from(slot.0)).ok_or(SlotError::NoSuch(slot))?;
        // A panic under the lock has ended the process in release builds (panic=abort).
        Ok(place.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The slot and the register offset behind a guest address.
fn place(address: u64) -> Option<(Slot, u64)> {
    let offset = address.checked_sub(BASE)?;
    let slot = u8::try_from(offset / SIZE).ok().filter(|&slot| usize::from(slot) < SLOTS)?;
    Some((Slot(slot), offset % SIZE))
}

fn placeholder(offset: u64, data: &mut [u8]) {
    let value = match u32::try_from(offset) {
        Ok(VIRTIO_MMIO_MAGIC_VALUE) => MAGIC,
        Ok(VIRTIO_MMIO_VERSION) => VERSION,
        _ => 0,
    };
    if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
        *data = value.to_le_bytes();
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
