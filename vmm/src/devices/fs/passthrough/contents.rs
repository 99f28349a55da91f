//! The contents of files and directories that are open.

use std::{fs::File, io, os::fd::AsRawFd as _};

use rustix::{
    fs::{FallocateFlags, OFlags, copy_file_range, fallocate, fdatasync, fsync, syncfs},
    io::dup,
};
use virtiofsd::{
    filesystem::{OpenOptions, ZeroCopyReader, ZeroCopyWriter},
    oslib::WritevFlags,
    read_dir::ReadDir,
};

use super::{
    Passthrough, errno,
    handle::{Handle, OpenFlags},
    policy,
};

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
        let slot = self.budget.take()?;
        let file = self.reopen(&inode, flags.host())?;
        let handle = self.table.open(number, Handle::new(inode, file, flags, slot))?;
        Ok((handle, policy::contents()))
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
        let handle = self.table.handle(inode, handle)?;
        to.read_from_file_at(handle.file(), size as usize, offset, None)
    }

    /// `append`: to where the file ends on the host, whatever the guest thinks.
    pub(in super::super) fn write(
        &self,
        Place { inode, handle, offset }: Place,
        mut from: impl ZeroCopyReader,
        size: u32,
        append: bool,
    ) -> io::Result<usize> {
        let handle = self.table.handle(inode, handle)?;
        from.write_to_file_at(handle.file(), size as usize, offset, append.then_some(WritevFlags::RWF_APPEND))
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
        let handle = self.table.handle(inode, handle)?;
        Ok(if only_data { fdatasync(&*handle) } else { fsync(&*handle) }?)
    }

    /// `mode` is that of fallocate(2).
    pub(in super::super) fn fallocate(
        &self,
        Place { inode, handle, offset }: Place,
        length: u64,
        mode: u32,
    ) -> io::Result<()> {
        let handle = self.table.handle(inode, handle)?;
        Ok(fallocate(&*handle, FallocateFlags::from_bits_retain(mode), offset, length)?)
    }

    /// Where data or a hole begins. `whence` is SEEK_DATA or SEEK_HOLE; the guest's kernel knows its positions itself.
    pub(in super::super) fn lseek(&self, at: Place, whence: u32) -> io::Result<u64> {
        let handle = self.table.handle(at.inode, at.handle)?;
        let whence = whence.cast_signed();
        let offset = i64::try_from(at.offset).map_err(|_| errno(libc::EINVAL))?;
        if !matches!(whence, libc::SEEK_DATA | libc::SEEK_HOLE) {
            return Err(errno(libc::EINVAL));
        }
        let _position = handle.position();
        // SAFETY: a call without pointers on a descriptor that is open as long as `handle` lives.
        let found = unsafe { libc::lseek(handle.file().as_raw_fd(), offset, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    /// At most `length` bytes; returns how many.
    pub(in super::super) fn copy(&self, from: Place, to: Place, length: u64) -> io::Result<usize> {
        let (source, target) =
            (self.table.handle(from.inode, from.handle)?, self.table.handle(to.inode, to.handle)?);
        let (mut offset, mut into) = (from.offset, to.offset);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(copy_file_range(&*source, Some(&mut offset), &*target, Some(&mut into), length)?)
    }

    /// The entries behind `offset`, which is 0 or the one that came with an entry; as many as `size` bytes hold.
    pub(in super::super) fn readdir(&self, at: Place, size: u32) -> io::Result<ReadDir<Vec<u8>>> {
        if size == 0 {
            return Ok(ReadDir::default());
        }
        let handle = self.table.handle(at.inode, at.handle)?;
        let buffer = vec![0; size as usize];
        let _position = handle.position();
        ReadDir::new::<File>(handle.file(), at.offset, buffer)
    }

    /// Writes out the file system that has the inode.
    pub(in super::super) fn syncfs(&self, inode: u64) -> io::Result<()> {
        Ok(syncfs(self.reopen(&*self.table.inode(inode)?, OFlags::RDONLY)?)?)
    }
}
