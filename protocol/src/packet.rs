//! One message per packet over SOCK_SEQPACKET, descriptors by SCM_RIGHTS. Blocking; the caller waits for readiness
//! when it must not block.
//!
//! A packet above `limits::PACKET`, a truncated one, or one with more descriptors than `limits::PACKET_FDS` is an
//! error and its descriptors are closed. All received descriptors are close-on-exec.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits;

#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    #[error("send packet")]
    Send { source: io::Error },
    #[error("receive packet")]
    Receive { source: io::Error },
    #[error("packet of {len} bytes, at most {max} are allowed", max = limits::PACKET)]
    TooLong { len: usize },
    #[error("packet was truncated")]
    Truncated,
    #[error("packet is not a message")]
    Message { source: serde_json::Error },
    #[error("the peer closed the socket")]
    Closed,
}

/// One end of a control socket.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Two connected ends, both close-on-exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends one message with its descriptors.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), PacketError> {
        let bytes = serde_json::to_vec(message).map_err(|source| PacketError::Message { source })?;
        if bytes.len() > limits::PACKET {
            return Err(PacketError::TooLong { len: bytes.len() });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(limits::PACKET_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(PacketError::TooLong { len: fds.len() });
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(|errno| PacketError::Send { source: errno.into() })?;
        Ok(())
    }

    /// Receives one message with its descriptors; `Closed` when the peer is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), PacketError> {
        // One byte more than allowed, so that an oversized packet is seen as such.
        let mut bytes = vec![0; limits::PACKET + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(limits::PACKET_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .map_err(|errno| PacketError::Receive { source: errno.into() })?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Err(PacketError::Closed);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
            || received.bytes > limits::PACKET
        {
            return Err(PacketError::Truncated);
        }
        let message = serde_json::from_slice(&bytes[..received.bytes])
            .map_err(|source| PacketError::Message { source })?;
        Ok((message, fds))
    }
}

impl From<OwnedFd> for PacketSocket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<PacketSocket> for OwnedFd {
    fn from(socket: PacketSocket) -> OwnedFd {
        socket.0
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
