//! The operations that the library's trait has no arguments for: locks, and files without a name.

use std::io;

use super::Filter;
use crate::devices::fs::{
    locks::{Answer, Outcome, Request},
    passthrough::{Caller, Created},
};

impl Filter {
    /// Makes a file without a name in a directory, and opens it.
    pub(in super::super) fn tmpfile(
        &self,
        caller: &Caller,
        parent: u64,
        mode: u32,
        flags: u32,
        umask: u32,
    ) -> io::Result<Created> {
        self.change()?;
        self.files.tmpfile(caller, parent, self.strip.created(mode), flags, umask)
    }

    // A lock changes nothing, so it may be had of a read-only device too. What needs a file that is open for writing, needs that.

    pub(in super::super) fn test_lock(
        &self,
        inode: u64,
        handle: u64,
        request: &Request,
    ) -> io::Result<Option<Request>> {
        self.files.test_lock(inode, handle, request)
    }

    pub(in super::super) fn set_lock(&self, inode: u64, handle: u64, request: &Request) -> io::Result<()> {
        self.files.set_lock(inode, handle, request)
    }

    pub(in super::super) fn wait_for_lock(
        &self,
        inode: u64,
        handle: u64,
        request: Request,
        unique: u64,
        answer: impl FnOnce() -> Answer,
    ) -> Outcome {
        self.files.wait_for_lock(inode, handle, request, unique, answer)
    }

    pub(in super::super) fn interrupt_lock(&self, unique: u64) {
        self.files.interrupt_lock(unique);
    }
}
