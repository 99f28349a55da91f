//! A file or directory that the guest has opened, and how.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustix::fs::OFlags;

use super::{
    super::budget::Slot,
    inode::Inode,
    opened::{Opened, Use},
};

/// What of open(2)'s flags reaches the host.
///
/// O_APPEND is left out: the guest asks for it write by write, since fcntl(2) may change it. O_DIRECT is left out: the host's
/// page cache is nothing that the guest could do without. O_NOATIME is left out, for it is refused to all but a file's owner.
/// Nothing here makes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenFlags(OFlags);

impl OpenFlags {
    const PASSED: i32 = libc::O_ACCMODE
        | libc::O_TRUNC
        | libc::O_NONBLOCK
        | libc::O_SYNC
        | libc::O_DSYNC
        | libc::O_DIRECTORY
        | libc::O_NOCTTY;

    /// From what the guest says.
    pub(super) fn new(flags: u32) -> Self {
        Self(OFlags::from_bits_retain(flags & Self::PASSED.cast_unsigned()))
    }

    pub(super) fn directory(flags: u32) -> Self {
        Self(Self::new(flags).0 | OFlags::DIRECTORY)
    }

    pub(super) fn host(self) -> OFlags {
        self.0 | OFlags::CLOEXEC
    }

    /// What an inode that is kept open is to serve for it.
    pub(super) fn purpose(self) -> Use {
        if self.access() == libc::O_RDONLY && !self.truncates() { Use::Read } else { Use::Write }
    }

    pub(super) fn truncates(self) -> bool {
        self.0.contains(OFlags::TRUNC)
    }

    /// For a file that is made and kept open.
    pub(super) fn to_keep(self) -> Self {
        Self(self.0.difference(OFlags::RWMODE) | OFlags::RDWR)
    }

    fn access(self) -> i32 {
        self.0.bits().cast_signed() & libc::O_ACCMODE
    }
}

#[derive(Debug)]
pub(super) struct Handle {
    inode: Arc<Inode>,
    opened: Arc<Opened>,
    flags: OpenFlags,
}

impl Handle {
    pub(super) fn new(inode: Arc<Inode>, file: File, flags: OpenFlags, slot: Slot) -> Self {
        Self { inode, opened: Arc::new(Opened::new(file, slot)), flags }
    }

    pub(super) fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    pub(super) fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    pub(super) fn file(&self) -> &Arc<File> {
        self.opened.file()
    }

    pub(super) fn readable(&self) -> bool {
        matches!(self.flags.access(), libc::O_RDONLY | libc::O_RDWR)
    }

    pub(super) fn writable(&self) -> bool {
        matches!(self.flags.access(), libc::O_WRONLY | libc::O_RDWR)
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}
