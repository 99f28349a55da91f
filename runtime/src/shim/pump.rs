//! Copies bytes from one descriptor to another, in a thread that ends with either, or with who holds the `Pumps`.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::OFlags,
};

/// Threads that end when this is dropped. What can be read at once is copied before, if it can be written.
#[derive(Debug)]
pub(super) struct Pumps {
    over: Arc<OwnedFd>,
}

impl Pumps {
    /// # Errors
    /// As eventfd(2).
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { over: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?) })
    }

    /// Both descriptors must not wait (O_NONBLOCK).
    ///
    /// # Errors
    /// No thread can be made.
    pub(super) fn start(&self, name: &str, from: Arc<File>, to: Arc<File>) -> io::Result<()> {
        let over = self.over.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || copy(&from, &to, &over)).map(drop)
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        // It cannot be full.
        let _ = rustix::io::write(&*self.over, &1_u64.to_ne_bytes());
    }
}

/// Has reads and writes of a descriptor answer at once.
///
/// # Errors
/// As fcntl(2).
pub(super) fn unwaiting(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

fn copy(mut from: &File, mut to: &File, over: &OwnedFd) {
    let mut buffer = [0; 16 << 10];
    while ready(from.as_fd(), PollFlags::IN, to.as_fd(), over.as_fd()) {
        let read = match from.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        let Some(mut rest) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return };
        while !rest.is_empty() {
            if !ready(to.as_fd(), PollFlags::OUT, from.as_fd(), over.as_fd()) {
                return;
            }
            match to.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// Waits until `fd` is ready; false when nothing will come of it any more. Who waits for bytes to read also looks for the end of
/// the other side; what was read is written even if its source has closed.
fn ready(fd: BorrowedFd<'_>, wanted: PollFlags, other: BorrowedFd<'_>, over: BorrowedFd<'_>) -> bool {
    let closed = |events: PollFlags| events.intersects(PollFlags::HUP | PollFlags::ERR);
    loop {
        let mut fds = vec![
            PollFd::from_borrowed_fd(fd, wanted),
            PollFd::from_borrowed_fd(over, PollFlags::IN),
            PollFd::from_borrowed_fd(other, PollFlags::empty()),
        ];
        if wanted == PollFlags::OUT {
            fds.pop();
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return false,
        }
        let mut events = fds.iter().map(PollFd::revents);
        let own = events.next().unwrap_or(PollFlags::empty());
        if own.contains(wanted) {
            return true;
        }
        if closed(own) || events.next().is_some_and(|over| !over.is_empty()) || events.any(closed) {
            return false;
        }
    }
}
