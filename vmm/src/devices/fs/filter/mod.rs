//! What the guest may ask of the file system: a wall in front of the library.
//!
//!  - A name is one component: not empty, not `.` or `..`, no `/`. The library hands names to the host kernel as they
//!    come, and trusts that a kernel has cut them at slashes; ours may be hostile.
//!  - Read-only is enforced here, not by the guest's mount flags.
//!  - What makes a program privileged is taken away, if the operator wants that (`strip`).
//!  - Arguments that the library cannot stand: offsets beyond i64, two INITs at once, device nodes; a guest without submounts.
//!
//! `operations` implements the library's trait around its own implementation rather than parsing messages: the library has
//! decoded everything exactly once by then, and an operation that a new version adds is refused (ENOSYS) until it is
//! listed there.

mod operations;

use std::{
    ffi::CStr,
    io,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use virtiofsd::{
    filesystem::{Context, Entry, FileSystem, FsOptions},
    fuse::InHeader,
    passthrough::PassthroughFs,
};

use super::{
    known::{Known, Revoked},
    metrics::FsMetrics,
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
    metrics: Arc<FsMetrics>,
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
    pub(super) fn new(files: PassthroughFs, read_only: bool, strip: Strip, metrics: Arc<FsMetrics>) -> Self {
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

/// The caller named to the library when it releases something. It does not look at the caller there.
fn nobody() -> Context {
    InHeader::default().into()
}
