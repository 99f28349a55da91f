//! A device's way to say "look": the interrupt status register and the irqfd behind it.
//!
//!   device thread ── signal_queue/signal_config ──▶ irqfd ──▶ guest
//!   guest ── InterruptStatus read ──▶ transport ──▶ `pending`
//!   guest ── InterruptACK write ──▶ KVM, or with more than used buffers ──▶ transport ──▶ `acknowledge`
//!
//! Shared by the transport (vCPU threads) and the device's worker: all fields are atomic, no lock.
//!
//! "Used buffers wait" always reads as set: a driver that looks in vain has lost nothing. So KVM takes the acknowledgement
//! of that bit alone (`acknowledgements`), which nobody waits for, and each interrupt costs the guest one exit to this process
//! instead of two. And a device in the host kernel, which writes to the irqfd itself and knows no registers, needs no thread.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The part of an `Interrupt` that a guest can read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterruptState {
    /// Config space has changed, and the driver has not acknowledged it.
    pub config: bool,
    /// ConfigGeneration.
    pub generation: u32,
    /// DEVICE_NEEDS_RESET.
    pub failed: bool,
}

#[derive(Debug)]
pub struct Interrupt {
    /// Config space has changed, and the driver has not acknowledged it.
    config: AtomicBool,
    /// Counts changes of config space (ConfigGeneration).
    generation: AtomicU32,
    /// The device gave up: DEVICE_NEEDS_RESET shows in the status register until the driver resets.
    failed: AtomicBool,
    raised: AtomicU32,
    irqfd: EventFd,
    acknowledgements: EventFd,
}

impl Interrupt {
    /// An interrupt that nothing has raised, with an irqfd of its own.
    ///
    /// # Errors
    /// There is no descriptor for an event.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            config: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            raised: AtomicU32::new(0),
            irqfd: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            acknowledgements: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Used buffers wait. Call it only when `ActiveQueue::needs_interrupt` says so, or an earlier one may be lost.
    pub fn signal_queue(&self) {
        self.raise();
    }

    /// Config space changed.
    pub fn signal_config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.config.store(true, Ordering::Release);
        self.raise();
    }

    /// The driver broke the protocol beyond what the device can answer: it must reset the device.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.signal_config();
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Interrupts raised since the device was plugged, without the interrupts that the host kernel raised (vhost).
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed).into()
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn pending(&self) -> u32 {
        let config = if self.config.load(Ordering::Acquire) { VIRTIO_MMIO_INT_CONFIG } else { 0 };
        VIRTIO_MMIO_INT_VRING | config
    }

    pub(crate) fn acknowledge(&self, bits: u32) {
        if bits & VIRTIO_MMIO_INT_CONFIG != 0 {
            self.config.store(false, Ordering::Release);
        }
    }

    /// The registers as plain data.
    pub(crate) fn state(&self) -> InterruptState {
        InterruptState {
            config: self.config.load(Ordering::Acquire),
            generation: self.generation(),
            failed: self.failed(),
        }
    }

    /// Sets the registers, and raises the interrupt once: what was raised before may not have arrived.
    pub(crate) fn restore(&self, state: InterruptState) {
        let InterruptState { config, generation, failed } = state;
        self.config.store(config, Ordering::Release);
        self.generation.store(generation, Ordering::Release);
        self.failed.store(failed, Ordering::Release);
        self.raise();
    }

    pub(crate) fn reset(&self) {
        self.config.store(false, Ordering::Release);
        self.failed.store(false, Ordering::Release);
    }

    /// Where acknowledgements of used buffers go. Never read.
    pub fn acknowledgements(&self) -> &EventFd {
        &self.acknowledgements
    }

    pub fn irqfd(&self) -> &EventFd {
        &self.irqfd
    }

    fn raise(&self) {
        self.raised.fetch_add(1, Ordering::Relaxed);
        // The only failure is a counter at its maximum (EAGAIN): then an interrupt is pending anyway.
        let _ = self.irqfd.write(1);
    }
}
