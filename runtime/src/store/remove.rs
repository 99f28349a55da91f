//! Removes a directory tree that a guest may have written to, and that host directories may be mounted in.
//!
//! Never follows a symlink and never crosses a mount (openat2 with NO_XDEV): if a bind mount of somebody's data is
//! still there, removal stops at it with EXDEV or EBUSY instead of emptying it.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with, unlinkat},
    io::Errno,
};

pub(super) fn tree(path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => empty(dir.as_fd())?,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Directories in directories are moved up beside them first, so that no depth takes a stack or descriptors.
fn empty(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut moved = 0;
    loop {
        let full = remove_entries(top)?;
        if full.is_empty() {
            return Ok(());
        }
        for name in full {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
            let dir = openat2(top, &name, flags, Mode::empty(), resolve)?;
            for child in remove_entries(dir.as_fd())? {
                move_up(dir.as_fd(), &child, top, &mut moved)?;
            }
            unlinkat(top, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Removes all but directories that are not empty, and names those.
fn remove_entries(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // Names first: removing while reading may skip entries.
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    let mut full = Vec::new();
    for name in names {
        let removed = match unlinkat(dir, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(dir, &name, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => full.push(name),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(full)
}

/// A mount point is not moved: EBUSY.
fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let target = format!(".removed-{moved}");
        match renameat_with(from, name, top, target, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests;
