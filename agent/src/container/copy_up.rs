//! A tmpfs that starts with what the image has at its place (`tmpcopyup`).
//!
//! Copied from directory descriptor to directory descriptor, links as links, so that a path is never followed out
//! of the image. The size of the tmpfs bounds what is copied; depth and number of entries are bounded here. Kept are
//! kind, mode, owner and modification time; hard links become copies.

use std::{ffi::CStr, io, os::fd::OwnedFd};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat,
        mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat,
    },
    io::Errno,
};

/// Directories within directories, each of which holds two descriptors open.
const DEPTH: usize = 64;
const ENTRIES: usize = 1 << 18;

/// Copies the entries of directory `from` into directory `to`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut left = ENTRIES;
    copy_directory(from, to, DEPTH, &mut left)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize, left: &mut usize) -> io::Result<()> {
    let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    // A place (O_PATH) cannot be read: it is opened again.
    let from = openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            *left = left.checked_sub(1).ok_or(Errno::TOOBIG)?;
            names.push(name.to_owned());
        }
    }
    for name in names {
        copy_entry(&from, to, &name, depth, left)?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize, left: &mut usize) -> io::Result<()> {
    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    let private = Mode::from_raw_mode(0o700);
    let below = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match kind {
        FileType::Directory => {
            mkdirat(to, name, private)?;
            let source = openat(from, name, OFlags::RDONLY | OFlags::DIRECTORY | below, Mode::empty())?;
            let target = openat(to, name, OFlags::RDONLY | OFlags::DIRECTORY | below, Mode::empty())?;
            copy_directory(&source, &target, depth, left)?;
        }
        FileType::RegularFile => {
            let source = openat(from, name, OFlags::RDONLY | OFlags::NONBLOCK | below, Mode::empty())?;
            let target = openat(to, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | below, private)?;
            io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
        }
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?,
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            mknodat(to, name, kind, private, found.st_rdev)?;
        }
        // What listens on a socket is not copied with it.
        FileType::Socket | FileType::Unknown => return Ok(()),
    }
    copy_metadata(to, name, &found, kind)
}

/// Owner, mode and modification time.
fn copy_metadata(to: &OwnedFd, name: &CStr, found: &Stat, kind: FileType) -> io::Result<()> {
    let owner = (Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)));
    match chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        // An id that a user namespace does not know cannot be given: the copy is then root's.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    if kind != FileType::Symlink {
        chmodat(to, name, Mode::from_raw_mode(found.st_mode & 0o7777), AtFlags::empty())?;
    }
    let modified = Timespec { tv_sec: found.st_mtime, tv_nsec: found.st_mtime_nsec.cast_signed() };
    let times = Timestamps { last_access: modified, last_modification: modified };
    Ok(utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests;
