//! The descriptors that came with a packet, each taken once.

use std::os::fd::OwnedFd;

use bulkhead_protocol::vmm::Fd;

#[derive(Debug, thiserror::Error)]
#[error("descriptor {index} for the {what} did not come with the packet, or is named twice")]
pub struct MissingFd {
    index: u8,
    what: &'static str,
}

/// What is not taken is closed when this is dropped.
#[derive(Debug)]
pub struct Fds(Vec<Option<OwnedFd>>);

impl Fds {
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds.into_iter().map(Some).collect())
    }

    pub fn take(&mut self, fd: Fd, what: &'static str) -> Result<OwnedFd, MissingFd> {
        let place = self.0.get_mut(usize::from(fd.0));
        place.and_then(Option::take).ok_or(MissingFd { index: fd.0, what })
    }
}
