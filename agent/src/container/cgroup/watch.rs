//! Waits for a change of one of the kernel's event files (`cgroup.events`, `memory.events`).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::fs::inotify;
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes of the notices that are taken at once: each is small, for a watch of a file has no names.
const NOTICES: usize = 4096;

/// Sees every change after its making.
#[derive(Debug)]
pub struct Watch(AsyncFd<Inotify>);

#[derive(Debug)]
struct Inotify(OwnedFd);

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Watch {
    pub(super) fn new(file: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, file, inotify::WatchFlags::MODIFY)?;
        // SAFETY: an `Inotify` stands for one descriptor that is open until it is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(Inotify(fd), Interest::READABLE) };
        watched.map(Self).map_err(|error| error.into_parts().1)
    }

    /// Returns when the file has changed since the last call.
    pub async fn changed(&self) -> io::Result<()> {
        self.0
            .async_io(Interest::READABLE, |inotify| {
                Ok(rustix::io::read(&inotify.0, &mut [0; NOTICES]).map(drop)?)
            })
            .await
    }
}
