//! What can be wrong with a slot and what is done to it.

use std::io;

use bulkhead_protocol::{limits::SLOTS, vmm::Slot};

use crate::devices::{device::ActivateError, queue::QueueError};

#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error("slot {} does not exist: there are {SLOTS}", .0.0)]
    NoSuch(Slot),
    #[error("slot {} has a device already", .0.0)]
    Taken(Slot),
    #[error("slot {} has no device", .0.0)]
    Empty(Slot),
    #[error("connect the event descriptors of slot {}", .slot.0)]
    Connect { slot: Slot, source: io::Error },
}

/// Why a device does not go to work.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Device(#[from] ActivateError),
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error("the state is of a device with id {state}, the slot has one with id {slot}")]
    Device { state: u32, slot: u32 },
    #[error("the status register never holds {0:#x}")]
    Status(u32),
    #[error("the driver has accepted the features {accepted:#x}, the device offers {offered:#x}")]
    Features { accepted: u64, offered: u64 },
    #[error("the state has {state} queues, the device has {device}")]
    Queues { state: usize, device: usize },
    #[error("start the device")]
    Start(#[from] StartError),
}
