//! What makes a program privileged for whoever runs it, taken from what a guest writes: for a host that uses its volumes.
//!
//!   create, mknod, setattr ─mode─▶ without S_ISUID, and without S_ISGID unless the file is a directory
//!   setxattr security.capability ─▶ EPERM; its removal passes
//!
//! A mode is stripped without an error, as chmod(2) strips S_ISGID when the group is not the caller's: an archive is unpacked
//! all the same. Capabilities have no such custom, and who sets them wants to know. mkdir(2) of Linux takes neither bit. What a
//! file has already stays, whatever its name and links become. Writes need nothing here: the host's kernel takes setuid, setgid and
//! capabilities from a program that is written to, unless the writer has CAP_FSETID in the initial user namespace, which a
//! process in the jail has not (`setattr_should_drop_suidgid`).

use std::{ffi::CStr, io, sync::Arc};

use super::metrics::FsMetrics;

/// The extended attribute that holds a file's capabilities (capabilities(7)).
const CAPABILITIES: &CStr = c"security.capability";

#[derive(Debug, Clone)]
pub(super) struct Strip {
    on: bool,
    metrics: Arc<FsMetrics>,
}

impl Strip {
    /// Lets everything pass unless it is `on`.
    pub(super) fn new(on: bool, metrics: Arc<FsMetrics>) -> Self {
        Self { on, metrics }
    }

    /// The mode of a new file, which is not a directory.
    pub(super) fn created(&self, mode: u32) -> u32 {
        self.without(libc::S_ISUID | libc::S_ISGID, mode)
    }

    /// The mode that a file is set to. `is_directory` tells what the file is, for the type in `mode` is the guest's word; it is
    /// called only if that matters.
    ///
    /// S_ISGID of a directory only sets the group of what is made in it. It gives no privilege.
    ///
    /// # Errors
    /// Those of `is_directory`.
    pub(super) fn changed(
        &self,
        mode: u32,
        is_directory: impl FnOnce() -> io::Result<bool>,
    ) -> io::Result<u32> {
        if self.on && mode & libc::S_ISGID != 0 && is_directory()? {
            return Ok(self.without(libc::S_ISUID, mode));
        }
        Ok(self.without(libc::S_ISUID | libc::S_ISGID, mode))
    }

    /// For every extended attribute that is set.
    ///
    /// # Errors
    /// EPERM for capabilities.
    pub(super) fn attribute(&self, name: &CStr) -> io::Result<()> {
        if self.on && name == CAPABILITIES {
            self.metrics.stripped.increment();
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(())
    }

    fn without(&self, bits: u32, mode: u32) -> u32 {
        if !self.on || mode & bits == 0 {
            return mode;
        }
        self.metrics.stripped.increment();
        mode & !bits
    }
}
