//! One end of a pipe, stream or pty on our side: non-blocking, registered with the event loop, shared by the copiers of
//! both directions where one descriptor carries both.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    net::{SendFlags, Shutdown, sockopt::set_socket_linger},
};
use tokio::io::{Interest, unix::AsyncFd};

#[derive(Debug)]
pub struct Endpoint(AsyncFd<OwnedFd>);

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("read a line")]
    Read(#[source] io::Error),
    #[error("a line of more than {0} bytes")]
    TooLong(usize),
    #[error("a line that is not UTF-8")]
    NotText,
}

impl Endpoint {
    /// Makes the description behind `fd` non-blocking: it must not be one that a container shares.
    ///
    /// # Errors
    /// For what epoll(7) cannot watch, such as a regular file.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        // SAFETY: the OwnedFd keeps its descriptor open and unchanged until the AsyncFd, which owns it, is dropped;
        // nothing takes it out.
        let inner = unsafe { AsyncFd::register(fd) }?;
        Ok(Self(inner))
    }

    /// Waits for bytes; 0 is the end.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.when_readable(|fd| read_now(fd, buffer)).await
    }

    /// One line without its end, byte by byte, because what follows it belongs to others. `most` bytes with the end.
    ///
    /// # Errors
    /// `UnexpectedEof` when it never ends.
    pub async fn read_line(&self, most: usize) -> Result<String, LineError> {
        let mut line = Vec::with_capacity(most);
        while line.len() < most {
            let mut byte = [0];
            match self.read(&mut byte).await.map_err(LineError::Read)? {
                0 => return Err(LineError::Read(io::ErrorKind::UnexpectedEof.into())),
                _ if byte == *b"\n" => return String::from_utf8(line).map_err(|_| LineError::NotText),
                _ => line.extend(byte),
            }
        }
        Err(LineError::TooLong(most))
    }

    /// Runs `read` whenever there may be bytes until it does not answer `WouldBlock`. `read` runs to its end or not
    /// at all, so giving up the wait loses nothing.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn when_readable<R>(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.0.async_io(Interest::READABLE, |fd| read(fd.as_fd())).await
    }

    /// # Errors
    /// Those of write(2); SIGPIPE is the caller's to ignore, as Rust's programs do.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.async_io(Interest::WRITABLE, |fd| write_now(fd.as_fd(), bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Ends our direction of a stream. A pipe or pty has no half to close: it ends when its last owner drops it.
    ///
    /// # Errors
    /// Those of shutdown(2).
    pub fn half_close(&self) -> io::Result<()> {
        match rustix::net::shutdown(&self.0, Shutdown::Write) {
            // The other side of a connection that is over has all that it will ever have.
            Ok(()) | Err(Errno::NOTSOCK | Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a peer know, where its kind of socket can, that nobody reads what it sends.
    ///
    /// # Errors
    /// Those of shutdown(2); a connection that is over is none.
    pub(crate) fn stop_reading(&self) -> io::Result<()> {
        match rustix::net::shutdown(&self.0, Shutdown::Read) {
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether closing a TCP connection is a reset, which the peer cannot take for a proper end, and which leaves nothing of the
    /// connection in the kernel (SO_LINGER of 0 s).
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn reset_on_close(&self, reset: bool) -> io::Result<()> {
        Ok(set_socket_linger(&self.0, reset.then_some(Duration::ZERO))?)
    }

    /// Whether nobody would take what is sent on a stream socket. Nothing is sent to find that out: TCP, unix and vsock look at
    /// the connection's state before they look at the length.
    pub(crate) fn peer_has_left(&self) -> bool {
        loop {
            match rustix::net::send(&self.0, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One read that does not wait. A pty whose other side has closed answers EIO: the end.
///
/// # Errors
/// Those of read(2) but EINTR; `WouldBlock` when there is nothing yet.
pub fn read_now(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Ok(count) => return Ok(count),
            Err(Errno::IO) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(fd, bytes) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
