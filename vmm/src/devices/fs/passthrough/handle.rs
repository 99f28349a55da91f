//! A file or directory that the guest has opened, and how.
//!
//!   number ─▶ `Handle` ─▶ `Opened`: the descriptor         0, of an inode that nobody else uses ─▶ `Kept` ─▶ `Opened`

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rustix::fs::OFlags;

use super::{super::budget::Slot, inode::Inode};

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

/// An open descriptor of the guest's.
#[derive(Debug)]
pub(super) struct Opened {
    file: Arc<File>,
    /// Held while the position is moved and used, which is that of a directory alone.
    position: Mutex<()>,
    _slot: Slot,
}

impl Opened {
    pub(super) fn new(file: File, slot: Slot) -> Self {
        Self { file: Arc::new(file), position: Mutex::default(), _slot: slot }
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn position(&self) -> MutexGuard<'_, ()> {
        // Whoever takes it sets the position first.
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
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

/// What an inode is to be open for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    /// Reading too.
    Write,
}

/// The descriptor of an inode that the guest opens and closes without a message.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<(Use, Arc<Opened>)>>);

impl Kept {
    fn slot(&self) -> MutexGuard<'_, Option<(Use, Arc<Opened>)>> {
        // Every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serves(&self, purpose: Use) -> Option<Arc<Opened>> {
        match &*self.slot() {
            Some((kept, opened)) if *kept == purpose || *kept == Use::Write => Some(Arc::clone(opened)),
            _ => None,
        }
    }
}

/// Those inodes that have such a descriptor: the `MOST` that were opened last.
#[derive(Debug, Default)]
pub(super) struct Keeper(Mutex<VecDeque<Weak<Inode>>>);

impl Keeper {
    /// Descriptors at once. Who reads another file over and over has it opened once more now and then.
    const MOST: usize = 256;

    fn queue(&self) -> MutexGuard<'_, VecDeque<Weak<Inode>>> {
        // Every change leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of an inode, or else what `open` makes.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn opened(
        &self,
        inode: &Arc<Inode>,
        purpose: Use,
        open: impl FnOnce() -> io::Result<Opened>,
    ) -> io::Result<Arc<Opened>> {
        if let Some(opened) = inode.kept().serves(purpose) {
            return Ok(opened);
        }
        let opened = Arc::new(open()?);
        self.keep(inode, purpose, Arc::clone(&opened));
        Ok(opened)
    }

    pub(super) fn keep(&self, inode: &Arc<Inode>, purpose: Use, opened: Arc<Opened>) {
        let before = inode.kept().slot().replace((purpose, opened));
        if before.is_none() {
            let mut queue = self.queue();
            queue.push_back(Arc::downgrade(inode));
            let oldest = if queue.len() > Self::MOST { queue.pop_front() } else { None };
            drop(queue);
            close(oldest.iter());
        }
    }

    /// Closes all: the guest has no descriptor left for something else.
    pub(super) fn close_all(&self) {
        let queue = std::mem::take(&mut *self.queue());
        close(queue.iter());
    }
}

fn close<'a>(inodes: impl Iterator<Item = &'a Weak<Inode>>) {
    for inode in inodes.filter_map(Weak::upgrade) {
        let kept = inode.kept().slot().take();
        drop(kept);
    }
}
