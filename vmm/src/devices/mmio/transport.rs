//! The registers of one plugged slot (virtio 1.2, 4.2.2), in front of one device.
//!
//!   read/write(offset) ──▶ register ──▶ `Status` table ──▶ device.activate / device.reset
//!
//! What may be written depends on the status alone: features before FEATURES_OK, queues between it and DRIVER_OK,
//! nothing after. So what was checked at DRIVER_OK stays as it was checked. Every access by a driver is 4 bytes
//! wide except to config space; others read 0 and write nothing.

use std::{io, sync::Arc};

use virtio_bindings::{
    virtio_config::{VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1},
    virtio_ids::{
        VIRTIO_ID_BALLOON, VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_FS, VIRTIO_ID_MEM, VIRTIO_ID_NET,
        VIRTIO_ID_RNG, VIRTIO_ID_VSOCK,
    },
    virtio_mmio::*,
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{
    error::{RestoreError, StartError},
    state::{TransportState, acceptable},
    status::{Status, Step},
};
use crate::{
    devices::{
        device::{Activation, VirtioDevice},
        interrupt::Interrupt,
        queue::{Position, QueueError, QueueSetup},
    },
    memory::Memory,
};

/// "virt", little-endian.
pub(super) const MAGIC: u32 = 0x7472_6976;
pub(super) const VERSION: u32 = 2;
/// "BULK", little-endian.
const VENDOR: u32 = 0x4b4c_5542;

#[derive(Debug)]
pub(super) struct Transport {
    device: Box<dyn VirtioDevice>,
    interrupt: Arc<Interrupt>,
    kicks: Vec<Arc<EventFd>>,
    registers: Registers,
    activations: u64,
}

/// What the driver has written since the last reset.
#[derive(Debug)]
struct Registers {
    status: Status,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<QueueSetup>,
}

impl Registers {
    fn new(queues: usize) -> Self {
        Self {
            status: Status::Reset,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: vec![QueueSetup::default(); queues],
        }
    }

    fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// The selected queue, as long as it may be set up.
    fn queue_mut(&mut self) -> Option<&mut QueueSetup> {
        if self.status != Status::FeaturesOk {
            return None;
        }
        self.queues.get_mut(usize::try_from(self.queue_select).ok()?)
    }
}

impl Transport {
    pub(super) fn new(device: Box<dyn VirtioDevice>) -> io::Result<Self> {
        let queues = device.queue_sizes().len();
        let kicks = (0..queues)
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let interrupt = Arc::new(Interrupt::new()?);
        Ok(Self { device, interrupt, kicks, registers: Registers::new(queues), activations: 0 })
    }

    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    pub(super) fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// The device stops first: after that nobody raises the interrupt any more.
    pub(super) fn reset(&mut self) {
        self.device.reset();
        self.interrupt.reset();
        self.registers = Registers::new(self.kicks.len());
    }

    /// Stops the device, and returns what the driver has made of the slot. Nothing is served until `restore`. The positions
    /// of the queues are not part of it: the used rings in guest memory have them (`Position::Resumed`).
    pub(super) fn state(&mut self) -> TransportState {
        self.device.reset();
        let registers = &self.registers;
        TransportState {
            device_id: self.device.device_id(),
            status: registers.status.bits(),
            device_features_select: registers.device_features_select,
            driver_features_select: registers.driver_features_select,
            driver_features: registers.driver_features,
            queue_select: registers.queue_select,
            queues: registers.queues.clone(),
            interrupt: self.interrupt.state(),
        }
    }

    /// Takes a state over, whatever was before, and starts the device if the driver had started it. The state is not
    /// trusted: it goes through the checks that a driver's own writes go through.
    ///
    /// # Errors
    /// Those of the checks, and of the start. The slot is reset then.
    pub(super) fn restore(&mut self, state: &TransportState, memory: &Memory) -> Result<(), RestoreError> {
        self.reset();
        let status = state.check(self.device.device_id(), self.offered(), self.kicks.len())?;
        self.registers = Registers {
            status,
            device_features_select: state.device_features_select,
            driver_features_select: state.driver_features_select,
            driver_features: state.driver_features,
            queue_select: state.queue_select,
            queues: state.queues.clone(),
        };
        self.interrupt.restore(state.interrupt);
        let (_, live) = status.reached();
        // A device that asks for reset was not started, or has stopped serving.
        if live && !state.interrupt.failed {
            self.start(memory, Position::Resumed).inspect_err(|_| self.reset())?;
        }
        Ok(())
    }

    /// The name of the device's kind, for counters.
    pub(super) fn kind(&self) -> &'static str {
        match self.device.device_id() {
            VIRTIO_ID_CONSOLE => "console",
            VIRTIO_ID_RNG => "rng",
            VIRTIO_ID_VSOCK => "vsock",
            VIRTIO_ID_FS => "fs",
            VIRTIO_ID_BALLOON => "balloon",
            VIRTIO_ID_BLOCK => "blk",
            VIRTIO_ID_MEM => "mem",
            VIRTIO_ID_NET => "net",
            _ => "device",
        }
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let transport = [("interrupts", self.interrupt.raised()), ("activations", self.activations)];
        self.device.metrics().into_iter().chain(transport)
    }

    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            self.device.read_config(offset, data);
            return;
        }
        if let (Ok(offset), Ok(data)) = (u32::try_from(offset), <&mut [u8; 4]>::try_from(data)) {
            *data = self.register(offset).to_le_bytes();
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8], memory: &Memory) {
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            self.device.write_config(offset, data);
            return;
        }
        if let (Ok(offset), Ok(data)) = (u32::try_from(offset), <[u8; 4]>::try_from(data)) {
            self.set_register(offset, u32::from_le_bytes(data), memory);
        }
    }

    fn register(&self, offset: u32) -> u32 {
        let registers = &self.registers;
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device.device_id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered(), registers.device_features_select),
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.selected_max().map_or(0, u32::from),
            VIRTIO_MMIO_QUEUE_READY => registers.queue().is_some_and(|queue| queue.ready).into(),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.pending(),
            VIRTIO_MMIO_STATUS => {
                let broken = if self.interrupt.failed() { VIRTIO_CONFIG_S_NEEDS_RESET } else { 0 };
                registers.status.bits() | broken
            }
            VIRTIO_MMIO_CONFIG_GENERATION => self.interrupt.generation(),
            // "No such region" is a length of all ones; Linux checks both halves.
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u32, value: u32, memory: &Memory) {
        let registers = &mut self.registers;
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => registers.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => registers.driver_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES if registers.status == Status::Driver => {
                let select = registers.driver_features_select;
                set_half(&mut registers.driver_features, select, value);
            }
            VIRTIO_MMIO_QUEUE_SEL => registers.queue_select = value,
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            VIRTIO_MMIO_STATUS => self.set_status(value, memory),
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                // Kicks arrive by ioeventfd; this is for a write that did not match (another width).
                if let Some(kick) = usize::try_from(value).ok().and_then(|index| self.kicks.get(index)) {
                    let _ = kick.write(1);
                }
            }
            _ => {
                if let Some(queue) = registers.queue_mut() {
                    set_queue_register(queue, offset, value);
                }
            }
        }
    }

    fn set_status(&mut self, written: u32, memory: &Memory) {
        match self.registers.status.step(written) {
            Step::Reset => self.reset(),
            Step::To(status) => self.registers.status = status,
            Step::CheckFeatures => {
                if acceptable(self.registers.driver_features, self.offered()) {
                    self.registers.status = Status::FeaturesOk;
                }
            }
            Step::Activate => {
                // Live even if it fails, so that the driver sees DEVICE_NEEDS_RESET as the answer to DRIVER_OK.
                self.registers.status = Status::Live;
                if let Err(error) = self.start(memory, Position::Fresh) {
                    crate::log::limited(&error);
                    self.interrupt.fail();
                }
            }
            Step::Ignore => {}
        }
    }

    fn start(&mut self, memory: &Memory, position: Position) -> Result<(), StartError> {
        let features = self.registers.driver_features;
        let event_idx = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let queues = self
            .registers
            .queues
            .iter()
            .zip(self.device.queue_sizes())
            .zip(&self.kicks)
            .enumerate()
            .map(|(index, ((setup, &max), kick))| {
                let mut queue = setup.activate(index, max, event_idx, Arc::clone(kick), &**memory)?;
                queue.go_to(position, &**memory)?;
                Ok(queue)
            })
            .collect::<Result<Vec<_>, QueueError>>()?;
        let interrupt = Arc::clone(&self.interrupt);
        self.device.activate(Activation { memory: memory.clone(), queues, interrupt, features })?;
        self.activations += 1;
        Ok(())
    }

    fn offered(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX
    }

    fn selected_max(&self) -> Option<u16> {
        self.device.queue_sizes().get(usize::try_from(self.registers.queue_select).ok()?).copied()
    }
}

fn set_queue_register(queue: &mut QueueSetup, offset: u32, value: u32) {
    match offset {
        VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
        VIRTIO_MMIO_QUEUE_READY => queue.ready = value == 1,
        VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
        VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
        VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut queue.avail, 0, value),
        VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut queue.avail, 1, value),
        VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut queue.used, 0, value),
        VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut queue.used, 1, value),
        _ => {}
    }
}

/// Half `select` of a 64-bit register pair; there are only two.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(register: &mut u64, select: u32, value: u32) {
    match select {
        0 => *register = *register & !0xffff_ffff | u64::from(value),
        1 => *register = *register & 0xffff_ffff | u64::from(value) << 32,
        _ => {}
    }
}
