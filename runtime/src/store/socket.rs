//! Unix sockets whose path may exceed `sun_path` (108 bytes): ids have up to 128, and callers choose the root.
//!
//! The directory is held open and the socket is named through it, `/proc/self/fd/<dir>/<name>`, which is short.

use std::{
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{Mode, OFlags};

fn through(dir: BorrowedFd<'_>, name: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

pub(super) fn bind(dir: BorrowedFd<'_>, name: &str) -> io::Result<UnixListener> {
    UnixListener::bind(through(dir, Path::new(name)))
}

pub(super) fn connect(dir: BorrowedFd<'_>, name: &str) -> io::Result<UnixStream> {
    UnixStream::connect(through(dir, Path::new(name)))
}

pub(super) fn connect_path(path: &Path) -> io::Result<UnixStream> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not the path of a socket");
    let name = path.file_name().ok_or_else(invalid)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(through(dir.as_fd(), Path::new(name)))
}

/// A socket of a directory that stays open meanwhile: for an event loop, which must not wait for who listens there.
#[derive(Debug, Clone)]
pub struct Door {
    dir: Arc<OwnedFd>,
    name: &'static str,
}

impl Door {
    pub(crate) fn new(dir: OwnedFd, name: &'static str) -> Self {
        Self { dir: Arc::new(dir), name }
    }

    /// A stream that does not block.
    ///
    /// # Errors
    /// As for connect(2); `WouldBlock` when too many wait to be accepted.
    pub async fn connect(&self) -> io::Result<OwnedFd> {
        let address = through(self.dir.as_fd(), Path::new(self.name));
        Ok(tokio::net::UnixStream::connect(address).await?.into_std()?.into())
    }
}
