//! The device status register (virtio 1.2, 2.1 and 3.1.1): one table for all devices.
//!
//!   0 ─ACKNOWLEDGE▶ 1 ─DRIVER▶ 3 ─FEATURES_OK▶ 0xb ─DRIVER_OK▶ 0xf        write 0: back to 0 from anywhere
//!
//! A driver adds one bit at a time and takes none away. Anything else is ignored: the driver reads the register
//! back and sees that it did not take. FAILED may be set at any time and stays until reset.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
};

/// Where the driver is with its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Reset,
    Acknowledged,
    /// Feature registers may be written.
    Driver,
    /// Queue registers may be written.
    FeaturesOk,
    /// The queues are live, all set-up registers are read-only.
    Live,
    /// The driver gave up; `.0` is what it had reached.
    Failed(u32),
}

/// What a write to the register asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Reset,
    To(Status),
    /// Check the features, then `FeaturesOk`.
    CheckFeatures,
    /// Activate the device, then `Live`.
    Activate,
    Ignore,
}

const ACKNOWLEDGED: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = ACKNOWLEDGED | VIRTIO_CONFIG_S_DRIVER;
const FEATURES_OK: u32 = DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
const LIVE: u32 = FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;

impl Status {
    /// The register's value, without DEVICE_NEEDS_RESET.
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Reset => 0,
            Self::Acknowledged => ACKNOWLEDGED,
            Self::Driver => DRIVER,
            Self::FeaturesOk => FEATURES_OK,
            Self::Live => LIVE,
            Self::Failed(reached) => reached | VIRTIO_CONFIG_S_FAILED,
        }
    }

    /// The status whose `bits` these are; `None` for what the register never says.
    pub(super) fn from_bits(bits: u32) -> Option<Self> {
        let reached = match bits & !VIRTIO_CONFIG_S_FAILED {
            0 => Self::Reset,
            ACKNOWLEDGED => Self::Acknowledged,
            DRIVER => Self::Driver,
            FEATURES_OK => Self::FeaturesOk,
            LIVE => Self::Live,
            _ => return None,
        };
        Some(if bits & VIRTIO_CONFIG_S_FAILED == 0 { reached } else { Self::Failed(reached.bits()) })
    }

    /// Whether the driver has got as far as `FeaturesOk`, and as far as `Live`. A driver that gave up stays where it was.
    pub(super) fn reached(self) -> (bool, bool) {
        let bits = self.bits();
        (bits & VIRTIO_CONFIG_S_FEATURES_OK != 0, bits & VIRTIO_CONFIG_S_DRIVER_OK != 0)
    }

    pub(super) fn step(self, written: u32) -> Step {
        // A driver may write back the DEVICE_NEEDS_RESET it has read.
        let written = written & !VIRTIO_CONFIG_S_NEEDS_RESET;
        match (self, written) {
            (_, 0) => Step::Reset,
            (Self::Failed(_), _) => Step::Ignore,
            (_, bits) if bits & VIRTIO_CONFIG_S_FAILED != 0 => Step::To(Self::Failed(self.bits())),
            (Self::Reset, ACKNOWLEDGED) => Step::To(Self::Acknowledged),
            (Self::Acknowledged, DRIVER) => Step::To(Self::Driver),
            (Self::Driver, FEATURES_OK) => Step::CheckFeatures,
            (Self::FeaturesOk, LIVE) => Step::Activate,
            (Self::Reset | Self::Acknowledged | Self::Driver | Self::FeaturesOk | Self::Live, _) => {
                Step::Ignore
            }
        }
    }
}
