//! Has the guest's kernel tell watchers: the ioctl of our change of its source (fuse-tell-watchers.patch).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use bulkhead_protocol::watch::{FileEvent, Name};
use rustix::fs::{Mode, OFlags};

/// struct fuse_tell_watchers.
#[repr(C)]
struct Tell {
    fd: i32,
    mask: u32,
    cookie: u32,
    name_len: u32,
    name: [u8; Name::MAX + 1],
}

/// Any open file of the share: the way to the kernel's FUSE.
#[derive(Debug)]
pub(super) struct Kernel(OwnedFd);

impl Kernel {
    /// # Errors
    /// Those of open(2).
    pub(super) fn of(share: &std::path::Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(share, flags, Mode::empty())?))
    }

    /// Tells who watches the inode behind `watched`. Asks nothing of the file server.
    ///
    /// # Errors
    /// ENOTDIR for an event with a name when a file is watched; EIO for an inode that the kernel has given up; EXDEV for what is not
    /// of the share.
    pub(super) fn tell(&self, watched: impl AsFd, event: &FileEvent) -> io::Result<()> {
        let name = event.name.as_ref().map(Name::as_bytes).unwrap_or_default();
        let mut tell = Tell {
            fd: watched.as_fd().as_raw_fd(),
            mask: event.mask,
            cookie: event.cookie,
            // At most `Name::MAX`.
            name_len: name.len() as u32,
            name: [0; Name::MAX + 1],
        };
        tell.name[..name.len()].copy_from_slice(name);
        let request = nix::request_code_write!(229, 200, size_of::<Tell>());
        // SAFETY: the kernel reads one `Tell`, whose layout is that of its struct, and keeps no pointer to it.
        let told = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, &raw const tell) };
        if told == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
