//! The registers of a slot as plain data: what a snapshot keeps of a transport, and no more trusted than the file it is
//! read from.
//!
//!   transport ──state──▶ `TransportState` ──serde──▶ … ──▶ `check` ──restore──▶ transport, its device started
//!
//! The positions of the queues are not part of it: the used rings in guest memory have them. What a device itself remembers
//! is not part of it either.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::{error::RestoreError, status::Status};
use crate::devices::{interrupt::InterruptState, queue::QueueSetup};

/// What the driver has written since the last reset, and what it has not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportState {
    /// The virtio device id of the slot's device.
    pub device_id: u32,
    /// The status register, without DEVICE_NEEDS_RESET.
    pub status: u32,
    pub device_features_select: u32,
    pub driver_features_select: u32,
    pub driver_features: u64,
    pub queue_select: u32,
    pub queues: Vec<QueueSetup>,
    pub interrupt: InterruptState,
}

impl TransportState {
    /// What no driver could have brought about on this device is refused. The queues are checked when the device starts.
    pub(super) fn check(&self, device_id: u32, offered: u64, queues: usize) -> Result<Status, RestoreError> {
        if self.device_id != device_id {
            return Err(RestoreError::Device { state: self.device_id, slot: device_id });
        }
        if self.queues.len() != queues {
            return Err(RestoreError::Queues { state: self.queues.len(), device: queues });
        }
        let status = Status::from_bits(self.status).ok_or(RestoreError::Status(self.status))?;
        let (features_ok, _) = status.reached();
        if features_ok && !acceptable(self.driver_features, offered) {
            return Err(RestoreError::Features { accepted: self.driver_features, offered });
        }
        Ok(status)
    }
}

/// Whether a driver may go on with these features: none that was not offered, and VERSION_1 among them.
pub(super) fn acceptable(accepted: u64, offered: u64) -> bool {
    accepted & !offered == 0 && accepted & 1 << VIRTIO_F_VERSION_1 != 0
}
