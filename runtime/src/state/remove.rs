//! Removes a directory tree that a guest may have written to, and that host directories may be mounted in.
//!
//! Never follows a symlink and never crosses a mount (openat2 with NO_XDEV): if a bind mount of somebody's data is
//! still there, removal stops at it with EXDEV instead of emptying it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, unlinkat},
    io::Errno,
};

/// Directories inside directories: far above ours, and it bounds the recursion.
const DEPTH_MAX: u32 = 64;

pub(super) fn tree(path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => empty(dir.as_fd(), DEPTH_MAX)?,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn empty(dir: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "directories nested too deeply"));
    }
    // Names first: removing while reading may skip entries.
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in names {
        let unlinked = match kind {
            FileType::Directory => Err(Errno::ISDIR),
            _ => unlinkat(dir, &name, AtFlags::empty()),
        };
        match unlinked {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
                let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
                let child = openat2(dir, &name, flags, Mode::empty(), resolve)?;
                empty(child.as_fd(), depth - 1)?;
                unlinkat(dir, &name, AtFlags::REMOVEDIR)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
