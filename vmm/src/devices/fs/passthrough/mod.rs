//! The files of the host behind what the guest asks: the operations of the file protocol, each mostly one system call.
//!
//!   number ─▶ `Table` ─▶ `Inode` (O_PATH) or `Handle` (open) ─▶ system call          lookups, opens ─▶ `Table` ─▶ number
//!
//! Names come checked (one component), and writing is allowed, or the filter in front has refused it. No lock is held over a
//! system call but the position of a directory. A thread that serves has called `prepare_thread`.

mod attributes;
mod contents;
mod entries;
mod filesystem;
mod handle;
mod inode;
mod keeper;
mod locking;
mod names;
mod opened;
mod policy;
mod table;
mod thread;
mod xattr;

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    path::DecInt,
};
use virtiofsd::filesystem::{Entry, FsOptions};

pub(super) use self::{contents::Place, entries::Entries, names::Created, thread::Caller};
use self::{
    inode::{Export, Inode, Status, Watched},
    keeper::Keeper,
    table::{Given, ROOT, Revoked, Table},
};
use super::{
    budget::{Budget, Slot},
    locks::Locks,
    watch::Group,
};

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[derive(Debug)]
pub(super) struct Passthrough {
    /// The directory that is served.
    root: PathBuf,
    /// /proc/self/fd, to open again what a descriptor names.
    proc_self_fd: File,
    table: Table,
    budget: Budget,
    keeper: Keeper,
    /// To hear by of what others change.
    group: Option<Arc<Group>>,
    /// The guest's kernel knows what a file is that nobody else uses.
    knows_exclusive: AtomicBool,
    locks: Arc<Locks>,
    /// The guest's kernel checks access by ACLs, and leaves the umask to this side.
    acls: AtomicBool,
}

impl Passthrough {
    /// How a file is named without being opened.
    const NAMED: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

    /// `files`: descriptors that the guest may have at once.
    pub(super) fn new(
        root: PathBuf,
        proc_self_fd: File,
        files: u64,
        locks: Arc<Locks>,
        group: Option<Arc<Group>>,
    ) -> Self {
        let (table, budget, keeper) = (Table::default(), Budget::new(files), Keeper::default());
        let (acls, knows_exclusive) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { root, proc_self_fd, table, budget, keeper, group, knows_exclusive, locks, acls }
    }

    /// What the guest's kernel says when it mounts.
    pub(super) fn knows_exclusive(&self, knows: bool) {
        self.knows_exclusive.store(knows, Ordering::Relaxed);
    }

    /// A slot for one more descriptor. Those that are kept for later give way.
    fn slot(&self) -> io::Result<Slot> {
        self.budget.take().or_else(|_| {
            self.keeper.close_all();
            self.budget.take()
        })
    }

    /// What a thread must do before it calls any operation.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub(super) fn prepare_thread(&self) -> io::Result<()> {
        thread::own(&self.proc_self_fd)
    }

    /// The guest mounts the share: whatever it had is gone. Returns which of the features that its kernel has are wanted.
    ///
    /// # Errors
    /// The root cannot be opened.
    pub(super) fn mount(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.forget_all();
        self.locks.forget_interrupts();
        let slot = self.slot()?;
        let root = openat(CWD, &self.root, Self::NAMED | OFlags::NOFOLLOW, Mode::empty())?;
        let status = Status::of(&root, c"")?;
        let root = Inode::new(root, &status, (Export::Share, Watched::No), slot);
        self.table.start_over(Some(Arc::new(root)));
        let acls = FsOptions::POSIX_ACL | FsOptions::DONT_MASK | FsOptions::SETXATTR_EXT;
        self.acls.store(capable.contains(acls), Ordering::Relaxed);
        let always = FsOptions::DO_READDIRPLUS
            | FsOptions::READDIRPLUS_AUTO
            | FsOptions::CACHE_SYMLINKS
            | FsOptions::POSIX_LOCKS
            | FsOptions::FLOCK_LOCKS;
        Ok(if self.has_acls() { always | acls } else { always })
    }

    /// Closes everything that the guest has. Its locks are free then, and what waits for one is told.
    pub(super) fn forget_all(&self) {
        self.close(self.table.start_over(None));
        self.acls.store(false, Ordering::Relaxed);
    }

    /// Takes from the guest all that it has below a child of the root, and closes it.
    pub(super) fn revoke(&self, name: &[u8]) {
        self.close(self.table.revoke(name));
    }

    fn close(&self, Revoked { inodes, handles }: Revoked) {
        let of_handles = handles.iter().map(|handle| handle.inode());
        for locks in inodes.iter().chain(of_handles).filter_map(|inode| inode.locked()) {
            self.locks.revoke(locks);
        }
    }

    fn has_acls(&self) -> bool {
        self.acls.load(Ordering::Relaxed)
    }

    // ---- from a name to an inode ----

    pub(super) fn lookup(&self, parent: u64, name: &CStr) -> io::Result<Entry> {
        match self.find(parent, name) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let directory = self.table.inode(parent)?;
                if directory.is_watched() { Ok(nothing(&directory)) } else { Err(error) }
            }
            found => found,
        }
    }

    /// As `lookup`, where there has to be something.
    fn find(&self, parent: u64, name: &CStr) -> io::Result<Entry> {
        let directory = self.table.inode(parent)?;
        // Most are known, and then this is all. The id is that of the file that the guest has: a file that is held open keeps
        // its number.
        let status = Status::of(&*directory, name)?;
        if let Some(given) = self.table.give_again(parent, name.to_bytes(), &status.id())? {
            return Ok(entry(&given, &directory, &status));
        }
        let (file, status) = self.look(&directory, name)?;
        let slot = match self.slot() {
            Ok(slot) => slot,
            Err(error) => match self.table.give_again(parent, name.to_bytes(), &status.id())? {
                Some(given) => return Ok(entry(&given, &directory, &status)),
                None => return Err(error),
            },
        };
        self.admit((parent, name), &directory, file, status, slot)
    }

    /// The guest gives up `count` references.
    pub(super) fn forget(&self, inode: u64, count: u64) {
        self.table.forget(inode, count);
    }

    /// Names the file `name` in a directory by a descriptor.
    fn look(&self, directory: &Inode, name: &CStr) -> io::Result<(OwnedFd, Status)> {
        let file = self.open_below(directory, name, Self::NAMED, Mode::empty())?;
        let status = Status::of(&file, c"")?;
        Ok((file, status))
    }

    /// Opens what `name` is in a directory, and never what a link there leads to.
    fn open_below(
        &self,
        directory: &Inode,
        name: &CStr,
        flags: OFlags,
        mode: Mode,
    ) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(directory, name, flags | OFlags::NOFOLLOW, mode, resolve)
    }

    /// Opens a file again that is known.
    ///
    /// # Errors
    /// EBADF unless it is a file or a directory.
    fn reopen(&self, inode: &Inode, flags: OFlags) -> io::Result<File> {
        if !inode.may_be_opened() {
            return Err(errno(libc::EBADF));
        }
        let number = DecInt::from_fd(inode);
        Ok(openat(&self.proc_self_fd, number, flags | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// The guest gets `file`, found as `found`: its parent's number, and its name there.
    fn admit(
        &self,
        (parent, name): (u64, &CStr),
        directory: &Inode,
        file: OwnedFd,
        mut status: Status,
        slot: Slot,
    ) -> io::Result<Entry> {
        let export = directory.export_of(&status, parent == ROOT);
        let watched = self.watch(export, directory, &file, &status);
        if matches!(watched, Watched::Marked(_)) {
            // It may have changed before.
            status = Status::of(&file, c"")?;
        }
        let inode = Arc::new(Inode::new(file, &status, (export, watched), slot));
        Ok(entry(&self.table.give(parent, name.to_bytes(), inode)?, directory, &status))
    }

    /// Sees to it that it is heard of when others change `file`, found in a directory.
    fn watch(&self, export: Export, directory: &Inode, file: &OwnedFd, status: &Status) -> Watched {
        let wanted = self.knows_exclusive.load(Ordering::Relaxed);
        let Some(group) = self.group.as_ref().filter(|_| wanted) else { return Watched::No };
        if !status.is_directory() {
            return if directory.is_watched() && status.links() == 1 { Watched::Above } else { Watched::No };
        }
        let known = directory.is_watched() && !directory.is_border_to(status);
        let mark = export == Export::Rootfs && (known || filesystem::is_local(file));
        match group.meet(status.id().place(), mark, file) {
            Ok(()) if mark => Watched::Marked(Arc::clone(group)),
            Ok(()) => Watched::Met(Arc::clone(group)),
            Err(_) => Watched::No,
        }
    }
}

/// What the guest is told of a name that means nothing, and may remember.
fn nothing(directory: &Inode) -> Entry {
    let attr = virtiofsd::fuse::Attr::default();
    let entry_timeout = policy::names(directory);
    Entry { inode: 0, generation: 0, attr, attr_timeout: std::time::Duration::ZERO, entry_timeout }
}

/// What the guest is told of an inode that was found in a directory.
fn entry((number, inode): &Given, directory: &Inode, status: &Status) -> Entry {
    let submount = if directory.is_border_to(status) { virtiofsd::fuse::ATTR_SUBMOUNT } else { 0 };
    let exclusive = if inode.is_exclusive() { policy::ATTR_EXCLUSIVE } else { 0 };
    Entry {
        inode: *number,
        generation: 0,
        attr: status.attributes(submount | exclusive),
        attr_timeout: policy::attributes(inode, status),
        entry_timeout: policy::names(directory),
    }
}
