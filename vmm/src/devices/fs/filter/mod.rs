//! What the guest may ask of the file system: a wall in front of the passthrough.
//!
//!  - A name is one component: not empty, not `.` or `..`, no `/`. The passthrough hands names to the host kernel as they
//!    come, and trusts that a kernel has cut them at slashes; ours may be hostile.
//!  - Read-only is enforced here, not by the guest's mount flags.
//!  - What makes a program privileged is taken away, if the operator wants that (`strip`).
//!  - Arguments that mean nothing: offsets beyond i64, device nodes; a guest without submounts.
//!
//! `operations` implements the library's trait rather than parsing messages: the library has decoded everything exactly once by
//! then, and an operation that a new version adds is refused (ENOSYS) until it is listed there. `direct` has those that the
//! library's trait has no arguments for.

mod direct;
mod operations;

use std::{
    ffi::CStr,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use virtiofsd::filesystem::FsOptions;

use super::{metrics::FsMetrics, passthrough::Passthrough, strip::Strip};

/// __O_TMPFILE without the O_DIRECTORY that O_TMPFILE brings: an opendir adds that itself.
const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;

/// INITs in the life of a VM. An honest guest mounts once, or a few times when its kernel binds the device anew.
const MAX_INITS: u32 = 1000;

/// Clones are the same file system.
#[derive(Clone)]
pub(super) struct Filter {
    files: Arc<Passthrough>,
    read_only: bool,
    strip: Strip,
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
    pub(super) fn new(
        files: Arc<Passthrough>,
        read_only: bool,
        strip: Strip,
        metrics: Arc<FsMetrics>,
    ) -> Self {
        Self { files, read_only, strip, inits: Arc::default(), metrics }
    }

    /// What a thread must do before it serves.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub(super) fn prepare_thread(&self) -> io::Result<()> {
        self.files.prepare_thread()
    }

    /// What the guest's kernel says when it mounts: whether it knows what files are that nobody else uses.
    pub(super) fn knows_exclusive(&self, knows: bool) {
        self.files.knows_exclusive(knows);
    }

    /// Linux sends one INIT for each mount of the device, and has announced submounts since 5.10. Without, a directory of
    /// the share would hide the file systems below it.
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

    /// Takes from the guest all that it has below a child of the root, and closes it.
    pub(super) fn revoke(&self, name: &[u8]) {
        self.files.revoke(name);
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
