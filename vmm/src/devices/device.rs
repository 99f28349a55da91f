//! The border between the transport and a device.
//!
//!   transport (vCPU threads, one at a time) ──▶ `VirtioDevice` ── at DRIVER_OK: `Activation` ──▶ its worker
//!
//! The transport owns the device. At DRIVER_OK the device gets an `Activation`, makes its worker of it and hands that to
//! the device loop (or to threads of its own); `reset` takes the worker back and drops it.

use std::{error::Error, fmt::Debug, sync::Arc};

use super::{interrupt::Interrupt, queue::ActiveQueue};
use crate::memory::Memory;

/// A device as the transport sees it.
pub trait VirtioDevice: Send + Debug {
    /// The virtio device id (virtio 1.2, 5), never 0.
    fn device_id(&self) -> u32;

    /// Feature bits beyond VERSION_1 and RING_EVENT_IDX, which the transport offers for all.
    fn features(&self) -> u64 {
        0
    }

    /// The largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from config space; what lies beyond the end of config space stays zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Config space is read-only unless a device says otherwise.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready. An error shows as DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Back to before `activate`. When it returns no queue is touched any more. Called before every activation but
    /// the first, and at unplug; may come when the device is not active.
    fn reset(&mut self);

    /// Counters: name without the device's name, value.
    fn metrics(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// All that a device gets at DRIVER_OK.
#[derive(Debug)]
pub struct Activation {
    pub memory: Memory,
    /// One for each of `VirtioDevice::queue_sizes`, all ready and in bounds.
    pub queues: Vec<ActiveQueue>,
    pub interrupt: Arc<Interrupt>,
    /// What the driver acknowledged: a subset of what was offered.
    pub features: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("activate {device}")]
pub struct ActivateError {
    pub device: &'static str,
    pub source: Box<dyn Error + Send + Sync>,
}

/// Copies the part of `config` that `[offset, offset + data.len())` covers; a device's whole `read_config`.
pub fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    let Ok(offset) = usize::try_from(offset) else { return };
    let Some(rest) = config.get(offset..) else { return };
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}
