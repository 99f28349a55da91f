//! What can be wrong with a network device.

use std::io;

/// The least that IPv4 asks of a link (virtio 1.2, 5.1.4.1); the other end of the range is the field's.
pub(super) const MTU_MIN: u16 = 68;

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("MTU {0} is below {MTU_MIN}")]
    Mtu(u16),
    #[error("MAC address {0:02x?} is no unicast address")]
    Mac([u8; 6]),
    #[error("{step}")]
    Tap { step: &'static str, source: io::Error },
    #[error("{step}")]
    Vhost { step: &'static str, source: ::vhost::Error },
    #[error("vhost-net lacks the features {missing:#x}")]
    VhostFeatures { missing: u64 },
    #[error("create the event descriptor for broken rings")]
    Watch { source: io::Error },
    #[error("the driver does not merge receive buffers")]
    NotMerging,
    #[error("the driver set up another number of queues than two")]
    Queues,
}
