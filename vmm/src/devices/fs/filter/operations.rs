//! Each operation of the file protocol: what is checked first, then the library's own.
//!
//! The order in all of them: names and arguments, read-only, then the inodes that the guest has. The guard of the last
//! is held while the library works.

use std::{ffi::CStr, io, sync::PoisonError, time::Duration};

use virtiofsd::{
    filesystem::{
        Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
        SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
    },
    fuse::{Attr, SetattrIn},
    passthrough::PassthroughFs,
};

use super::{Filter, Handle, Inode, errno};

/// The library converts offsets with `unwrap`; the kernel would refuse these anyway.
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

impl FileSystem for Filter {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = <PassthroughFs as FileSystem>::DirIter;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.start(capable)?;
        let _alone = self.table.write().unwrap_or_else(PoisonError::into_inner);
        self.known.clear();
        self.files.init(capable)
    }

    fn destroy(&self) {
        let _alone = self.table.write().unwrap_or_else(PoisonError::into_inner);
        self.known.clear();
        self.files.destroy();
    }

    // ---- by name ----

    fn lookup(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<Entry> {
        self.name(name)?;
        let _shared = self.on([parent])?;
        let entry = self.files.lookup(ctx, parent, name)?;
        self.give(parent, name, entry)
    }

    fn symlink(
        &self,
        ctx: Context,
        linkname: &CStr,
        parent: Inode,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        // The target is text: it may be anything, and nothing here follows it.
        self.name(name)?;
        self.change()?;
        let _shared = self.on([parent])?;
        let entry = self.files.symlink(ctx, linkname, parent, name, extensions)?;
        self.give(parent, name, entry)
    }

    fn mknod(
        &self,
        ctx: Context,
        inode: Inode,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.name(name)?;
        self.change()?;
        node(mode, rdev)?;
        let mode = self.strip.created(mode);
        let _shared = self.on([inode])?;
        let entry = self.files.mknod(ctx, inode, name, mode, rdev, umask, extensions)?;
        self.give(inode, name, entry)
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.name(name)?;
        self.change()?;
        let _shared = self.on([parent])?;
        let entry = self.files.mkdir(ctx, parent, name, mode, umask, extensions)?;
        self.give(parent, name, entry)
    }

    fn unlink(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        self.name(name)?;
        self.change()?;
        let _shared = self.on([parent])?;
        self.files.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: Context, parent: Inode, name: &CStr) -> io::Result<()> {
        self.name(name)?;
        self.change()?;
        let _shared = self.on([parent])?;
        self.files.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: Context,
        olddir: Inode,
        oldname: &CStr,
        newdir: Inode,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.name(oldname)?;
        self.name(newname)?;
        self.change()?;
        let _shared = self.on([olddir, newdir])?;
        self.files.rename(ctx, olddir, oldname, newdir, newname, flags)
    }

    fn link(&self, ctx: Context, inode: Inode, newparent: Inode, newname: &CStr) -> io::Result<Entry> {
        self.name(newname)?;
        self.change()?;
        let _shared = self.on([inode, newparent])?;
        let entry = self.files.link(ctx, inode, newparent, newname)?;
        self.give(newparent, newname, entry)
    }

    fn create(
        &self,
        ctx: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<Handle>, OpenOptions)> {
        self.name(name)?;
        self.change()?;
        let _shared = self.on([parent])?;
        let mode = self.strip.created(mode);
        let (entry, handle, options) =
            self.files.create(ctx, parent, name, mode, kill_priv, flags, umask, extensions)?;
        let inode = entry.inode;
        // After a revocation both go: what is not the guest's any more cannot be opened.
        let given = self.give(parent, name, entry);
        self.open_handle(inode, handle)?;
        Ok((given?, handle, options))
    }

    // ---- by inode ----

    fn forget(&self, ctx: Context, inode: Inode, count: u64) {
        let _shared = self.shared();
        match self.known.forget(inode, count) {
            0 => {}
            count => self.files.forget(ctx, inode, count),
        }
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(Inode, u64)>) {
        let _shared = self.shared();
        let had = requests.into_iter().map(|(inode, count)| (inode, self.known.forget(inode, count)));
        self.files.batch_forget(ctx, had.filter(|(_, count)| *count > 0).collect());
    }

    fn getattr(&self, ctx: Context, inode: Inode, handle: Option<Handle>) -> io::Result<(Attr, Duration)> {
        let _shared = self.on([inode])?;
        self.files.getattr(ctx, inode, handle)
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: Inode,
        mut attr: SetattrIn,
        handle: Option<Handle>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        self.change()?;
        let _shared = self.on([inode])?;
        if valid.contains(SetattrValid::MODE) {
            attr.mode = self.strip.changed(attr.mode, || self.is_directory(inode))?;
        }
        self.files.setattr(ctx, inode, attr, handle, valid)
    }

    fn readlink(&self, ctx: Context, inode: Inode) -> io::Result<Vec<u8>> {
        let _shared = self.on([inode])?;
        self.files.readlink(ctx, inode)
    }

    fn open(
        &self,
        ctx: Context,
        inode: Inode,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.open_flags(flags)?;
        let _shared = self.on([inode])?;
        let (handle, options) = self.files.open(ctx, inode, kill_priv, flags)?;
        self.open_handle(inode, handle)?;
        Ok((handle, options))
    }

    fn statfs(&self, ctx: Context, inode: Inode) -> io::Result<libc::statvfs64> {
        let _shared = self.on([inode])?;
        self.files.statfs(ctx, inode)
    }

    fn access(&self, ctx: Context, inode: Inode, mask: u32) -> io::Result<()> {
        if mask.cast_signed() & libc::W_OK != 0 {
            self.change()?;
        }
        let _shared = self.on([inode])?;
        self.files.access(ctx, inode, mask)
    }

    fn setxattr(
        &self,
        ctx: Context,
        inode: Inode,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra_flags: SetxattrFlags,
    ) -> io::Result<()> {
        self.change()?;
        self.strip.attribute(name)?;
        let _shared = self.on([inode])?;
        self.files.setxattr(ctx, inode, name, value, flags, extra_flags)
    }

    fn getxattr(&self, ctx: Context, inode: Inode, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        let _shared = self.on([inode])?;
        self.files.getxattr(ctx, inode, name, size)
    }

    fn listxattr(&self, ctx: Context, inode: Inode, size: u32) -> io::Result<ListxattrReply> {
        let _shared = self.on([inode])?;
        self.files.listxattr(ctx, inode, size)
    }

    fn removexattr(&self, ctx: Context, inode: Inode, name: &CStr) -> io::Result<()> {
        self.change()?;
        let _shared = self.on([inode])?;
        self.files.removexattr(ctx, inode, name)
    }

    fn syncfs(&self, ctx: Context, inode: Inode) -> io::Result<()> {
        let _shared = self.on([inode])?;
        self.files.syncfs(ctx, inode)
    }

    fn opendir(&self, ctx: Context, inode: Inode, flags: u32) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.open_flags(flags)?;
        let _shared = self.on([inode])?;
        let (handle, options) = self.files.opendir(ctx, inode, flags)?;
        self.open_handle(inode, handle)?;
        Ok((handle, options))
    }

    // ---- by handle ----

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        w: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        range(offset, size.into())?;
        let _shared = self.on([inode])?;
        self.files.read(ctx, inode, handle, w, size, offset, lock_owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        r: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        self.change()?;
        range(offset, size.into())?;
        let _shared = self.on([inode])?;
        self.files.write(ctx, inode, handle, r, size, offset, lock_owner, delayed_write, kill_priv, flags)
    }

    fn flush(&self, ctx: Context, inode: Inode, handle: Handle, lock_owner: u64) -> io::Result<()> {
        let _shared = self.on([inode])?;
        self.files.flush(ctx, inode, handle, lock_owner)
    }

    fn fsync(&self, ctx: Context, inode: Inode, datasync: bool, handle: Handle) -> io::Result<()> {
        let _shared = self.on([inode])?;
        self.files.fsync(ctx, inode, datasync, handle)
    }

    fn fallocate(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.change()?;
        range(offset, length)?;
        let _shared = self.on([inode])?;
        self.files.fallocate(ctx, inode, handle, mode, offset, length)
    }

    fn release(
        &self,
        ctx: Context,
        inode: Inode,
        flags: u32,
        handle: Handle,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        let _shared = self.on([inode])?;
        self.files.release(ctx, inode, flags, handle, flush, flock_release, lock_owner)?;
        self.known.close(handle);
        Ok(())
    }

    fn lseek(&self, ctx: Context, inode: Inode, handle: Handle, offset: u64, whence: u32) -> io::Result<u64> {
        let _shared = self.on([inode])?;
        self.files.lseek(ctx, inode, handle, offset, whence)
    }

    fn copyfilerange(
        &self,
        ctx: Context,
        inode_in: Inode,
        handle_in: Handle,
        offset_in: u64,
        inode_out: Inode,
        handle_out: Handle,
        offset_out: u64,
        len: u64,
        flags: u64,
    ) -> io::Result<usize> {
        self.change()?;
        let _shared = self.on([inode_in, inode_out])?;
        self.files
            .copyfilerange(ctx, inode_in, handle_in, offset_in, inode_out, handle_out, offset_out, len, flags)
    }

    fn readdir(
        &self,
        ctx: Context,
        inode: Inode,
        handle: Handle,
        size: u32,
        offset: u64,
    ) -> io::Result<Self::DirIter> {
        let _shared = self.on([inode])?;
        self.files.readdir(ctx, inode, handle, size, offset)
    }

    fn fsyncdir(&self, ctx: Context, inode: Inode, datasync: bool, handle: Handle) -> io::Result<()> {
        let _shared = self.on([inode])?;
        self.files.fsyncdir(ctx, inode, datasync, handle)
    }

    fn releasedir(&self, ctx: Context, inode: Inode, flags: u32, handle: Handle) -> io::Result<()> {
        let _shared = self.on([inode])?;
        self.files.releasedir(ctx, inode, flags, handle)?;
        self.known.close(handle);
        Ok(())
    }
}
