//! The descriptors that came with a packet, each taken once.

use std::os::fd::OwnedFd;

use bulkhead_protocol::vmm::Fd;

#[derive(Debug, thiserror::Error)]
#[error("descriptor {index}, for the {what}, is missing from the packet or used twice")]
pub struct MissingFd {
    index: u8,
    what: &'static str,
}

/// A descriptor that is not taken is closed when this is dropped.
#[derive(Debug)]
pub struct Fds(Vec<Option<OwnedFd>>);

impl Fds {
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds.into_iter().map(Some).collect())
    }

    /// Takes the descriptor at an index. `what`: its use, for the message.
    ///
    /// # Errors
    /// The packet had no such descriptor, or it was taken before.
    pub fn take(&mut self, fd: Fd, what: &'static str) -> Result<OwnedFd, MissingFd> {
        let place = self.0.get_mut(usize::from(fd.0));
        place.and_then(Option::take).ok_or(MissingFd { index: fd.0, what })
    }
}
