//! What the guest may ask of the file system: a wall in front of the library.
//!
//!  - A name is one component: not empty, not `.` or `..`, no `/`. The library hands names to the host kernel as they
//!    come, and trusts that a kernel has cut them at slashes; ours may be hostile.
//!  - Read-only is enforced here, not by the guest's mount flags.
//!  - What makes a program privileged is taken away, if the operator wants that (`strip`).
//!  - Arguments that the library cannot stand: offsets beyond i64, two INITs at once, device nodes; a guest without submounts.
//!
//! This implements the library's trait around its own implementation rather than parsing messages: the library has
//! decoded everything exactly once by then, and an operation that a new version adds is refused (ENOSYS) until it is
//! listed here.

use std::{
    ffi::CStr,
    io,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use virtiofsd::{
    filesystem::{
        Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
        SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
    },
    fuse::{Attr, InHeader, SetattrIn},
    passthrough::PassthroughFs,
};

use super::{
    known::{Known, Revoked},
    metrics::Metrics,
    strip::Strip,
};

type Inode = <PassthroughFs as FileSystem>::Inode;
type Handle = <PassthroughFs as FileSystem>::Handle;

/// __O_TMPFILE without the O_DIRECTORY that O_TMPFILE brings: an opendir adds that itself.
const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;

/// INITs in the life of a VM. An honest guest mounts once, or a few times when its kernel binds the device anew.
const MAX_INITS: u32 = 1000;

/// Clones are the same file system.
#[derive(Clone)]
pub(super) struct Filter {
    files: Arc<PassthroughFs>,
    /// INIT and DESTROY replace the whole table of inodes, and the library minds if a request comes between: they
    /// are alone, all others share. Held while a request runs, which may block; only a mount waits for that.
    table: Arc<RwLock<()>>,
    read_only: bool,
    strip: Strip,
    /// What the guest may name by number.
    known: Arc<Known>,
    /// INITs that were let through.
    inits: Arc<AtomicU32>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Filter {
    pub(super) fn new(files: PassthroughFs, read_only: bool, strip: Strip, metrics: Arc<Metrics>) -> Self {
        Self {
            files: Arc::new(files),
            table: Arc::default(),
            read_only,
            strip,
            known: Arc::default(),
            inits: Arc::default(),
            metrics,
        }
    }

    fn shared(&self) -> RwLockReadGuard<'_, ()> {
        // The lock guards no data of ours, so there is nothing that a panic could have left half done.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Linux sends one INIT for each mount of the device, and has announced submounts since 5.10. Without, a directory of
    /// the share would hide the file systems below it, and the library writes a line for each such INIT.
    fn start(&self, capable: FsOptions) -> io::Result<()> {
        let one_more = |inits: u32| (inits < MAX_INITS).then_some(inits + 1);
        let able = capable.contains(FsOptions::SUBMOUNTS);
        if !able || self.inits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.metrics.refused_inits.increment();
            return Err(errno(libc::EPROTO));
        }
        Ok(())
    }

    /// For every operation that takes a name.
    fn name(&self, name: &CStr) -> io::Result<()> {
        let name = name.to_bytes();
        // A `CStr` has no NUL inside.
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            self.metrics.bad_names.increment();
            return Err(errno(libc::EINVAL));
        }
        Ok(())
    }

    /// For every operation that changes something.
    fn change(&self) -> io::Result<()> {
        if self.read_only {
            self.metrics.read_only.increment();
            return Err(errno(libc::EROFS));
        }
        Ok(())
    }

    /// For every operation on inodes: those that the guest has. ESTALE makes its kernel look the path up again.
    fn on<const N: usize>(&self, inodes: [Inode; N]) -> io::Result<RwLockReadGuard<'_, ()>> {
        let shared = self.shared();
        if inodes.iter().all(|inode| self.known.has(*inode)) { Ok(shared) } else { Err(errno(libc::ESTALE)) }
    }

    /// For every operation that gives the guest an inode.
    fn give(&self, parent: Inode, name: &CStr, entry: Entry) -> io::Result<Entry> {
        if self.known.give(parent, name.to_bytes(), entry.inode) {
            return Ok(entry);
        }
        self.files.forget(nobody(), entry.inode, 1);
        Err(errno(libc::ESTALE))
    }

    /// For every operation that gives the guest a handle.
    fn open_handle(&self, inode: Inode, handle: Option<Handle>) -> io::Result<()> {
        match handle {
            Some(handle) if !self.known.open(inode, handle) => {
                let _ = self.files.releasedir(nobody(), inode, 0, handle);
                Err(errno(libc::ESTALE))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes from the guest all that it has below a child of the root, and closes it.
    pub(super) fn revoke(&self, name: &[u8]) {
        let _shared = self.shared();
        let Revoked { inodes, handles } = self.known.revoke(name);
        for (handle, inode) in handles {
            // Files and directories are released alike. One that the guest released just now is as good.
            let _ = self.files.releasedir(nobody(), inode, 0, handle);
        }
        self.files.batch_forget(nobody(), inodes);
    }

    /// As the host sees it.
    fn is_directory(&self, inode: Inode) -> io::Result<bool> {
        let (attr, _) = self.files.getattr(nobody(), inode, None)?;
        Ok(attr.mode & libc::S_IFMT == libc::S_IFDIR)
    }

    fn open_flags(&self, flags: u32) -> io::Result<()> {
        let flags = flags.cast_signed();
        let changes = libc::O_TRUNC | libc::O_CREAT | TMPFILE;
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & changes != 0 {
            self.change()?;
        }
        Ok(())
    }
}

/// On whose behalf the library lets go of something: it does not ask.
fn nobody() -> Context {
    InHeader::default().into()
}

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
