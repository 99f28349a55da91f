//! One end of a pipe, stream or pty on our side: non-blocking, registered with the event loop, shared by the pumps of
//! both directions where one descriptor carries both.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    net::Shutdown,
};
use tokio::io::{Interest, unix::AsyncFd};

#[derive(Debug)]
pub struct Endpoint(AsyncFd<OwnedFd>);

impl Endpoint {
    /// Makes the description behind `fd` non-blocking: it must not be one that a container shares.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        // SAFETY: the OwnedFd keeps its descriptor open and unchanged until the AsyncFd, which owns it, is dropped;
        // nothing takes it out.
        let inner = unsafe { AsyncFd::register(fd) }?;
        Ok(Self(inner))
    }

    /// Waits for bytes; 0 is the end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.when_readable(|fd| read_now(fd, buffer)).await
    }

    /// Runs `read` whenever there may be bytes until it does not answer `WouldBlock`. `read` runs to its end or not
    /// at all, so giving up the wait loses nothing.
    pub async fn when_readable<R>(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.0.async_io(Interest::READABLE, |fd| read(fd.as_fd())).await
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.async_io(Interest::WRITABLE, |fd| write_now(fd.as_fd(), bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Ends our direction of a stream. A pipe or pty has no half to close: it ends when its last owner drops it.
    pub fn half_close(&self) -> io::Result<()> {
        match rustix::net::shutdown(&self.0, Shutdown::Write) {
            Ok(()) | Err(Errno::NOTSOCK) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One read that does not wait. A pty whose other side has closed answers EIO: the end.
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
