//! Each operation of the file protocol: what is checked first, then the passthrough's own.
//!
//! The order in all of them: names and arguments, then read-only. Whether the guest has the inodes is the passthrough's to say.

use std::{ffi::CStr, io, time::Duration};

use virtiofsd::{
    filesystem::{
        Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
        SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
    },
    fuse::{Attr, SetattrIn},
    soft_idmap::Id as _,
};

use super::{Filter, errno};
use crate::devices::fs::passthrough::{Caller, Entries, Place};

/// The kernel would refuse other offsets anyway.
fn range(offset: u64, size: u64) -> io::Result<()> {
    match offset.checked_add(size) {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(errno(libc::EINVAL)),
    }
}

/// Device nodes are for hosts; overlayfs's whiteout (0, 0) is not a device.
fn node(mode: u32, rdev: u32) -> io::Result<()> {
    match mode & libc::S_IFMT {
        libc::S_IFBLK => Err(errno(libc::EPERM)),
        libc::S_IFCHR if rdev != 0 => Err(errno(libc::EPERM)),
        _ => Ok(()),
    }
}

fn caller(context: Context, extensions: &Extensions) -> Caller {
    let groups = extensions.sup_gids.iter().map(|gid| gid.into_inner()).collect();
    Caller { uid: context.uid.into_inner(), gid: context.gid.into_inner(), groups }
}

impl FileSystem for Filter {
    type Inode = u64;
    type Handle = u64;
    type DirIter = Entries;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.start(capable)?;
        self.files.mount(capable)
    }

    fn destroy(&self) {
        self.files.forget_all();
    }

    // ---- by name ----

    fn lookup(&self, _: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.name(name)?;
        self.files.lookup(parent, name)
    }

    fn symlink(
        &self,
        context: Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        // The target is text: it may be anything, and nothing here follows it.
        self.name(name)?;
        self.change()?;
        self.files.symlink(&caller(context, &extensions), target, parent, name)
    }

    fn mknod(
        &self,
        context: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        device: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.name(name)?;
        self.change()?;
        node(mode, device)?;
        let mode = self.strip.created(mode);
        self.files.mknod(&caller(context, &extensions), parent, name, mode, device, umask)
    }

    fn mkdir(
        &self,
        context: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.name(name)?;
        self.change()?;
        self.files.mkdir(&caller(context, &extensions), parent, name, mode, umask)
    }

    fn unlink(&self, _: Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.name(name)?;
        self.change()?;
        self.files.unlink(parent, name)
    }

    fn rmdir(&self, _: Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.name(name)?;
        self.change()?;
        self.files.rmdir(parent, name)
    }

    fn rename(
        &self,
        _: Context,
        from: u64,
        name: &CStr,
        to: u64,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.name(name)?;
        self.name(new_name)?;
        self.change()?;
        self.files.rename((from, name), (to, new_name), flags)
    }

    fn link(&self, _: Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.name(name)?;
        self.change()?;
        self.files.link(inode, parent, name)
    }

    fn create(
        &self,
        context: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        _kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions)> {
        self.name(name)?;
        self.change()?;
        let (caller, mode) = (caller(context, &extensions), self.strip.created(mode));
        let (entry, handle, options) = self.files.create(&caller, parent, name, mode, flags, umask)?;
        Ok((entry, Some(handle), options))
    }

    // ---- by inode ----

    fn forget(&self, _: Context, inode: u64, count: u64) {
        self.files.forget(inode, count);
    }

    fn getattr(&self, _: Context, inode: u64, _handle: Option<u64>) -> io::Result<(Attr, Duration)> {
        self.files.getattr(inode)
    }

    fn setattr(
        &self,
        _: Context,
        inode: u64,
        mut attr: SetattrIn,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        if valid.contains(SetattrValid::SIZE) {
            range(attr.size, 0)?;
        }
        self.change()?;
        if valid.contains(SetattrValid::MODE) {
            attr.mode = self.strip.changed(attr.mode, || self.files.is_directory(inode))?;
        }
        self.files.setattr(inode, &attr, handle, valid)
    }

    fn readlink(&self, _: Context, inode: u64) -> io::Result<Vec<u8>> {
        self.files.readlink(inode)
    }

    fn open(
        &self,
        _: Context,
        inode: u64,
        _kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        self.open_flags(flags)?;
        let (handle, options) = self.files.open(inode, flags)?;
        Ok((Some(handle), options))
    }

    fn statfs(&self, _: Context, inode: u64) -> io::Result<libc::statvfs64> {
        self.files.statfs(inode)
    }

    fn setxattr(
        &self,
        _: Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra: SetxattrFlags,
    ) -> io::Result<()> {
        self.change()?;
        self.strip.attribute(name)?;
        self.files.setxattr(inode, name, value, flags, extra)
    }

    fn getxattr(&self, _: Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        self.files.getxattr(inode, name, size)
    }

    fn listxattr(&self, _: Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.files.listxattr(inode, size)
    }

    fn removexattr(&self, _: Context, inode: u64, name: &CStr) -> io::Result<()> {
        self.change()?;
        self.files.removexattr(inode, name)
    }

    fn syncfs(&self, _: Context, inode: u64) -> io::Result<()> {
        self.files.syncfs(inode)
    }

    fn opendir(&self, _: Context, inode: u64, flags: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        self.open_flags(flags)?;
        let (handle, options) = self.files.opendir(inode, flags)?;
        Ok((Some(handle), options))
    }

    // ---- by handle ----

    fn read<W: ZeroCopyWriter>(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        w: W,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        _flags: u32,
    ) -> io::Result<usize> {
        range(offset, size.into())?;
        self.files.read(Place { inode, handle, offset }, w, size)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        r: R,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        delayed_write: bool,
        _kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        self.change()?;
        range(offset, size.into())?;
        // What the guest's kernel has cached, it has put at its place already.
        let append = flags.cast_signed() & libc::O_APPEND != 0 && !delayed_write;
        self.files.write(Place { inode, handle, offset }, r, size, append)
    }

    fn flush(&self, _: Context, inode: u64, handle: u64, lock_owner: u64) -> io::Result<()> {
        self.files.flush(inode, handle, lock_owner)
    }

    fn fsync(&self, _: Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.files.fsync(inode, handle, datasync)
    }

    fn fallocate(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.change()?;
        range(offset, length)?;
        self.files.fallocate(Place { inode, handle, offset }, length, mode)
    }

    fn release(
        &self,
        _: Context,
        inode: u64,
        _flags: u32,
        handle: u64,
        _flush: bool,
        _flock_release: bool,
        _lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.files.release(inode, handle)
    }

    fn lseek(&self, _: Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        self.files.lseek(Place { inode, handle, offset }, whence)
    }

    fn copyfilerange(
        &self,
        _: Context,
        inode_in: u64,
        handle_in: u64,
        offset_in: u64,
        inode_out: u64,
        handle_out: u64,
        offset_out: u64,
        len: u64,
        flags: u64,
    ) -> io::Result<usize> {
        self.change()?;
        range(offset_in, 0)?;
        range(offset_out, 0)?;
        // None is defined (copy_file_range(2)).
        if flags != 0 {
            return Err(errno(libc::EINVAL));
        }
        let from = Place { inode: inode_in, handle: handle_in, offset: offset_in };
        let to = Place { inode: inode_out, handle: handle_out, offset: offset_out };
        self.files.copy(from, to, len)
    }

    fn readdir(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
    ) -> io::Result<Self::DirIter> {
        self.files.readdir(Place { inode, handle, offset }, size)
    }

    fn fsyncdir(&self, _: Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.files.fsync(inode, handle, datasync)
    }

    fn releasedir(&self, _: Context, inode: u64, _flags: u32, handle: u64) -> io::Result<()> {
        self.files.release(inode, handle)
    }
}
