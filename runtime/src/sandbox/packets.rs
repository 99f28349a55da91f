//! `PacketSocket` for tasks: waits for readiness instead of blocking.
//!
//! Sending and receiving are independent: one task may wait for a packet while another sends.

use std::io;

use bulkhead_protocol::packet::{PacketError, PacketSocket};
use serde::{Serialize, de::DeserializeOwned};
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::{Interest, unix::AsyncFd};

#[derive(Debug)]
pub(crate) struct Packets(AsyncFd<PacketSocket>);

impl Packets {
    /// # Errors
    /// When the socket cannot be made non-blocking or registered with the reactor.
    pub(crate) fn new(socket: PacketSocket) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: `PacketSocket` owns its descriptor and hands out only borrows of it, so it stays open and the same
        // until the `AsyncFd` drops it.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    pub(crate) async fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), PacketError> {
        loop {
            let mut ready =
                self.0.ready(Interest::WRITABLE).await.map_err(|source| PacketError::Send { source })?;
            match self.0.get_ref().send(message, fds) {
                Err(PacketError::Send { source }) if source.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                }
                done => return done,
            }
        }
    }

    /// Safe to cancel: a packet is taken whole or not at all.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), PacketError> {
        loop {
            let mut ready =
                self.0.ready(Interest::READABLE).await.map_err(|source| PacketError::Receive { source })?;
            match self.0.get_ref().receive() {
                Err(PacketError::Receive { source }) if source.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                }
                // A peer that died with data of ours unread.
                Err(PacketError::Receive { source }) if source.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(PacketError::Closed);
                }
                done => return done,
            }
        }
    }
}
