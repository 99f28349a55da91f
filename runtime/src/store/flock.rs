//! A lock of flock(2) that ends when its holder says so.
//!
//! Such a lock belongs to the open file, and closing a descriptor gives it back only with the last copy of the descriptor.
//! A child has copies of all of them from fork to exec, so another thread that starts a program would keep a lock that was
//! closed meanwhile, and the next command would be told that somebody is at work.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// An exclusive lock; its drop gives it back, whoever has copies of the descriptor.
#[derive(Debug)]
pub struct Flock {
    file: File,
    /// Another process has it now, by a copy of the descriptor.
    handed_over: bool,
}

impl Flock {
    /// Without waiting; `None` when somebody else holds it.
    ///
    /// # Errors
    /// As for flock(2).
    pub fn take(file: File) -> Result<Option<Self>, Errno> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self::received(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// In the process that the lock was handed to.
    pub fn received(file: File) -> Self {
        Self { file, handed_over: false }
    }

    /// Leaves it to the process that has a copy of the descriptor.
    pub fn handed_over(mut self) {
        self.handed_over = true;
    }
}

/// To be copied.
impl AsFd for Flock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        if !self.handed_over {
            // The descriptor is open, and giving back what is not held is no error.
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

#[cfg(test)]
mod tests;
