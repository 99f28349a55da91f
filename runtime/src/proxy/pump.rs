//! Copies bytes between a host descriptor and a stream of the guest, one thread per direction.
//!
//!   host fd ─`inward`─▶ stream          stream ─`outward`─▶ host fd, and `Progress` says how far
//!
//! Threads with blocking calls, because the descriptors are the caller's: standard output shared with others must not
//! be made non-blocking, and a regular file cannot be polled. If the caller made them non-blocking, `poll` waits. A
//! pump holds at most one buffer that the far side has not taken, so a slow reader stalls only its own writer.

use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tokio::sync::watch;

/// One socket buffer's worth; larger ones gain nothing.
const CHUNK: usize = 64 << 10;
/// Far above what a pump needs, and a fraction of the default.
const STACK: usize = CHUNK + (64 << 10);

/// How far an outward pump has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes that the host has taken.
    pub(super) delivered: u64,
    /// No more will come: end of file, or one of the sides is gone.
    pub(super) ended: bool,
}

/// Starts copying what the guest sends to `to`.
///
/// # Errors
/// When no thread can be made.
pub(super) fn outward(from: UnixStream, to: OwnedFd) -> io::Result<watch::Receiver<Progress>> {
    let (sender, receiver) = watch::channel(Progress::default());
    thread::Builder::new().name("outward".into()).stack_size(STACK).spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match read(from.as_fd(), &mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            if write_all(to.as_fd(), &buffer[..n]).is_err() {
                break;
            }
            sender.send_modify(|progress| progress.delivered += n as u64);
        }
        // The writer in the guest learns that nobody reads, as on any pipe.
        let _ = from.shutdown(Shutdown::Both);
        sender.send_modify(|progress| progress.ended = true);
    })?;
    Ok(receiver)
}

/// Starts copying `from` to the guest; at the end of `from` the stream is half-closed when `half_close` says so. The
/// thread ends with the process: nothing can wake a read of a terminal.
///
/// # Errors
/// When no thread can be made.
pub(super) fn inward(from: OwnedFd, to: UnixStream, half_close: bool) -> io::Result<()> {
    thread::Builder::new().name("inward".into()).stack_size(STACK).spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match read(from.as_fd(), &mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) if write_all(to.as_fd(), &buffer[..n]).is_err() => break,
                Ok(_) => {}
            }
        }
        if half_close {
            let _ = to.shutdown(Shutdown::Write);
        }
    })?;
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::IN)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
