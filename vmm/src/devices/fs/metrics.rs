//! Counters of the fs device. Written by the workers, read by the control thread.

use virtiofsd::fuse::Opcode;

use crate::counter::Counter;

/// The operations that are counted, by what they are called in metrics.
const OPERATIONS: [(Opcode, &str); 36] = [
    (Opcode::Lookup, "lookup"),
    (Opcode::Forget, "forget"),
    (Opcode::BatchForget, "batch_forget"),
    (Opcode::Getattr, "getattr"),
    (Opcode::Setattr, "setattr"),
    (Opcode::Readlink, "readlink"),
    (Opcode::Symlink, "symlink"),
    (Opcode::Mknod, "mknod"),
    (Opcode::Mkdir, "mkdir"),
    (Opcode::Unlink, "unlink"),
    (Opcode::Rmdir, "rmdir"),
    (Opcode::Rename, "rename"),
    (Opcode::Rename2, "rename2"),
    (Opcode::Link, "link"),
    (Opcode::Open, "open"),
    (Opcode::Create, "create"),
    (Opcode::TmpFile, "tmpfile"),
    (Opcode::Read, "read"),
    (Opcode::Write, "write"),
    (Opcode::Lseek, "lseek"),
    (Opcode::CopyFileRange, "copy_file_range"),
    (Opcode::Fallocate, "fallocate"),
    (Opcode::Flush, "flush"),
    (Opcode::Fsync, "fsync"),
    (Opcode::Fsyncdir, "fsyncdir"),
    (Opcode::Syncfs, "syncfs"),
    (Opcode::Release, "release"),
    (Opcode::Opendir, "opendir"),
    (Opcode::Readdir, "readdir"),
    (Opcode::Readdirplus, "readdirplus"),
    (Opcode::Releasedir, "releasedir"),
    (Opcode::Setxattr, "setxattr"),
    (Opcode::Getxattr, "getxattr"),
    (Opcode::Listxattr, "listxattr"),
    (Opcode::Statfs, "statfs"),
    (Opcode::Setlk, "setlk"),
];

#[derive(Debug, Default)]
pub(super) struct FsMetrics {
    /// Chains taken.
    pub(super) requests: Counter,
    /// Chains that are no FUSE request: they were returned empty.
    pub(super) bad_requests: Counter,
    /// Names that no honest kernel sends.
    pub(super) bad_names: Counter,
    /// Changes refused because the device is read-only.
    pub(super) read_only: Counter,
    /// INITs of a guest that cannot do what is needed, or does nothing else.
    pub(super) refused_inits: Counter,
    /// By opcode. Others than those of `OPERATIONS` are rare.
    operations: Operations,
    /// Modes that lost setuid or setgid, and capabilities of files that were refused.
    pub(super) stripped: Counter,
}

/// A counter for each opcode.
#[derive(Debug)]
struct Operations([Counter; 64]);

impl Default for Operations {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl FsMetrics {
    /// A request has come.
    pub(super) fn operation(&self, opcode: u32) {
        if let Some(counter) = self.operations.0.get(opcode as usize) {
            counter.increment();
        }
    }

    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        let mut values = vec![
            ("requests", self.requests.get()),
            ("bad_requests", self.bad_requests.get()),
            ("bad_names", self.bad_names.get()),
            ("read_only_refused", self.read_only.get()),
            ("refused_inits", self.refused_inits.get()),
            ("stripped", self.stripped.get()),
        ];
        let operations = OPERATIONS.iter().filter_map(|(opcode, name)| {
            let counted = self.operations.0.get(*opcode as usize)?.get();
            (counted > 0).then_some((*name, counted))
        });
        values.extend(operations);
        values
    }
}
