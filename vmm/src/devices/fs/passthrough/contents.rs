//! The contents of files and directories that are open.

use std::{io, os::fd::AsRawFd as _, sync::Arc};

use rustix::{
    fs::{FallocateFlags, OFlags, copy_file_range, fallocate, fdatasync, fsync, ftruncate, syncfs},
    io::dup,
};
use virtiofsd::{
    filesystem::{OpenOptions, ZeroCopyReader, ZeroCopyWriter},
    oslib::WritevFlags,
};

use super::{
    Passthrough,
    entries::Entries,
    errno,
    handle::{Handle, OpenFlags},
    inode::{Inode, Status},
    opened::{Opened, Use},
    policy,
};

/// The handle of all openings that took no message.
pub(super) const UNASKED: u64 = 0;

/// A place in a file that is open: inode, handle, offset in bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Place {
    pub(in super::super) inode: u64,
    pub(in super::super) handle: u64,
    pub(in super::super) offset: u64,
}

impl Passthrough {
    pub(in super::super) fn open(&self, inode: u64, flags: u32) -> io::Result<(u64, OpenOptions)> {
        self.open_with(inode, OpenFlags::new(flags))
    }

    pub(in super::super) fn opendir(&self, inode: u64, flags: u32) -> io::Result<(u64, OpenOptions)> {
        self.open_with(inode, OpenFlags::directory(flags))
    }

    fn open_with(&self, number: u64, flags: OpenFlags) -> io::Result<(u64, OpenOptions)> {
        let inode = self.table.inode(number)?;
        if inode.is_exclusive() {
            return self.open_exclusive(&inode, flags);
        }
        let slot = self.slot()?;
        let file = self.reopen(&inode, flags.host())?;
        // A directory's contents are asked for each time.
        let same = !inode.is_directory() && inode.opens(&Status::of(&file, c"")?);
        let handle = self.table.open(number, Handle::new(inode, file, flags, slot))?;
        Ok((handle, policy::contents(same)))
    }

    /// The guest asks all the same when it wants to write: whether it may is the host's to say.
    fn open_exclusive(&self, inode: &Arc<Inode>, flags: OpenFlags) -> io::Result<(u64, OpenOptions)> {
        let opened = self.opened_for(inode, flags.purpose())?;
        if flags.truncates() {
            ftruncate(&*opened, 0)?;
        }
        Ok((UNASKED, policy::exclusive()))
    }

    /// What an inode is open by that nobody else uses.
    fn opened_for(&self, inode: &Arc<Inode>, purpose: Use) -> io::Result<Arc<Opened>> {
        self.keeper.opened(inode, purpose, || {
            let slot = self.slot()?;
            let access = match purpose {
                Use::Read => OFlags::RDONLY,
                Use::Write => OFlags::RDWR,
            };
            Ok(Opened::new(self.reopen(inode, access | OFlags::NONBLOCK)?, slot))
        })
    }

    /// What the guest means by a handle.
    fn opened(&self, inode: u64, handle: u64, purpose: Use) -> io::Result<Arc<Opened>> {
        if handle != UNASKED {
            return Ok(Arc::clone(self.table.handle(inode, handle)?.opened()));
        }
        let inode = self.table.inode(inode)?;
        if !inode.is_exclusive() {
            return Err(errno(libc::EBADF));
        }
        self.opened_for(&inode, purpose)
    }

    /// Closes a file or a directory, and frees the locks that were taken by nothing else.
    pub(in super::super) fn release(&self, inode: u64, handle: u64) -> io::Result<()> {
        let closed = self.table.close(inode, handle)?;
        if let Some(locks) = closed.inode().locked() {
            self.locks.release(locks, handle, closed.file());
        }
        Ok(())
    }

    pub(in super::super) fn read(
        &self,
        Place { inode, handle, offset }: Place,
        mut to: impl ZeroCopyWriter,
        size: u32,
    ) -> io::Result<usize> {
        let opened = self.opened(inode, handle, Use::Read)?;
        to.read_from_file_at(opened.file(), size as usize, offset, None)
    }

    /// `append`: to where the file ends on the host, whatever the guest thinks.
    pub(in super::super) fn write(
        &self,
        Place { inode, handle, offset }: Place,
        mut from: impl ZeroCopyReader,
        size: u32,
        append: bool,
    ) -> io::Result<usize> {
        let opened = self.opened(inode, handle, Use::Write)?;
        from.write_to_file_at(opened.file(), size as usize, offset, append.then_some(WritevFlags::RWF_APPEND))
    }

    /// One descriptor of the guest's is closed, by a process whose locks end with that.
    pub(in super::super) fn flush(&self, inode: u64, handle: u64, owner: u64) -> io::Result<()> {
        let handle = self.table.handle(inode, handle)?;
        if let Some(locks) = handle.inode().locked() {
            self.locks.flush(locks, owner);
        }
        // Closing makes some file systems report what they could not write.
        let twin = dup(&*handle)?;
        // SAFETY: the descriptor was taken out of its owner, so it is closed once; `close` alone tells how that went.
        if unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(twin)) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    pub(in super::super) fn fsync(&self, inode: u64, handle: u64, only_data: bool) -> io::Result<()> {
        let opened = self.opened(inode, handle, Use::Read)?;
        Ok(if only_data { fdatasync(&*opened) } else { fsync(&*opened) }?)
    }

    /// `mode` is that of fallocate(2).
    pub(in super::super) fn fallocate(
        &self,
        Place { inode, handle, offset }: Place,
        length: u64,
        mode: u32,
    ) -> io::Result<()> {
        let opened = self.opened(inode, handle, Use::Write)?;
        Ok(fallocate(&*opened, FallocateFlags::from_bits_retain(mode), offset, length)?)
    }

    /// Where data or a hole begins. `whence` is SEEK_DATA or SEEK_HOLE; the guest's kernel knows its positions itself.
    pub(in super::super) fn lseek(&self, at: Place, whence: u32) -> io::Result<u64> {
        let opened = self.opened(at.inode, at.handle, Use::Read)?;
        let whence = whence.cast_signed();
        let offset = i64::try_from(at.offset).map_err(|_| errno(libc::EINVAL))?;
        if !matches!(whence, libc::SEEK_DATA | libc::SEEK_HOLE) {
            return Err(errno(libc::EINVAL));
        }
        let _position = opened.position();
        // SAFETY: a call without pointers on a descriptor that is open as long as `opened` lives.
        let found = unsafe { libc::lseek(opened.file().as_raw_fd(), offset, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    /// At most `length` bytes; returns how many.
    pub(in super::super) fn copy(&self, from: Place, to: Place, length: u64) -> io::Result<usize> {
        let source = self.opened(from.inode, from.handle, Use::Read)?;
        let target = self.opened(to.inode, to.handle, Use::Write)?;
        let (mut offset, mut into) = (from.offset, to.offset);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(copy_file_range(&*source, Some(&mut offset), &*target, Some(&mut into), length)?)
    }

    /// The entries behind `offset`, which is 0 or the one that came with an entry; as many as `size` bytes hold.
    pub(in super::super) fn readdir(&self, at: Place, size: u32) -> io::Result<Entries> {
        let opened = self.opened(at.inode, at.handle, Use::Read)?;
        Entries::read(opened, at.offset, size as usize)
    }

    /// Writes out the file system that has the inode.
    pub(in super::super) fn syncfs(&self, inode: u64) -> io::Result<()> {
        Ok(syncfs(self.reopen(&*self.table.inode(inode)?, OFlags::RDONLY)?)?)
    }
}
