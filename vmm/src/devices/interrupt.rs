//! A device's way to say "look": the interrupt status register and the irqfd behind it.
//!
//!   device thread ── signal_queue/signal_config ──▶ status bits + irqfd ──▶ guest
//!   guest ── InterruptStatus read, InterruptACK write ──▶ transport ──▶ `pending` / `acknowledge`
//!
//! Shared by the transport (vCPU threads) and the device's worker: all fields are atomic, no lock.
//!
//! A device in the host kernel writes to the irqfd itself and knows nothing of the status register. For such a device
//! "used buffers wait" always reads as set: a driver that looks in vain has lost nothing, and no thread of ours is
//! needed. KVM then takes the driver's acknowledgement of that bit alone (`acknowledgements`), for nobody waits for it.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    /// Counts changes of config space (ConfigGeneration).
    generation: AtomicU32,
    /// The device gave up: DEVICE_NEEDS_RESET shows in the status register until the driver resets.
    failed: AtomicBool,
    /// The host kernel serves the queues: see above.
    acknowledgements: Option<EventFd>,
    raised: AtomicU32,
    irqfd: EventFd,
}

impl Interrupt {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            acknowledgements: None,
            raised: AtomicU32::new(0),
            irqfd: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// For queues that the host kernel serves.
    pub fn of_host_kernel() -> io::Result<Self> {
        let acknowledgements = Some(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok(Self { acknowledgements, ..Self::new()? })
    }

    /// Used buffers wait. Call it only when `ActiveQueue::needs_interrupt` says so.
    pub fn signal_queue(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// Config space changed.
    pub fn signal_config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// The driver broke the protocol beyond what the device can answer: it must reset the device.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.signal_config();
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Interrupts raised since the device was plugged, but for those of the host kernel.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed).into()
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn pending(&self) -> u32 {
        let always = if self.acknowledgements.is_some() { VIRTIO_MMIO_INT_VRING } else { 0 };
        self.status.load(Ordering::Acquire) | always
    }

    pub(crate) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    pub(crate) fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.failed.store(false, Ordering::Release);
    }

    /// Where acknowledgements of used buffers go, when nothing depends on them. Never read.
    pub fn acknowledgements(&self) -> Option<&EventFd> {
        self.acknowledgements.as_ref()
    }

    pub fn irqfd(&self) -> &EventFd {
        &self.irqfd
    }

    fn raise(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::AcqRel);
        self.raised.fetch_add(1, Ordering::Relaxed);
        // The only failure is a counter at its maximum (EAGAIN): then an interrupt is pending anyway.
        let _ = self.irqfd.write(1);
    }
}
