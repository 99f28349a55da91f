//! Paths of the container, resolved so that nothing in it can lead outside.
//!
//! A `Root` is the directory that "/" means. Every path goes through openat2: symbolic links and `..` stop at the
//! root, magic links of /proc are refused. What is made is made by name in a directory descriptor, never by a
//! path, so a container that renames or links things meanwhile (it may share the rootfs) gains nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, mkdirat, openat2, statat},
    io::{Errno, Result},
};

/// openat2 answers EAGAIN when a rename somewhere in the system made `..` unsure. Rare: a few tries are enough.
const TRIES: usize = 64;

#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl From<OwnedFd> for Root {
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Opens what is there; links are followed inside the root.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        open_with(&self.0, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens what is there as a place (O_PATH).
    pub(super) fn place(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// The directory at `path`, made with its parents (mode 0755) where missing.
    pub(super) fn make_directory(&self, path: &str) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            done => return done,
        }
        let mut here = self.open("/", OFlags::PATH | OFlags::DIRECTORY)?;
        let mut seen = String::new();
        // Once a component was made by us, the rest is below it and `..` would be lexical guesswork.
        let mut fresh = false;
        for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
            seen = format!("{seen}/{part}");
            if !fresh {
                match self.open(&seen, OFlags::PATH | OFlags::DIRECTORY) {
                    Err(Errno::NOENT) => fresh = true,
                    opened => {
                        here = opened?;
                        continue;
                    }
                }
            }
            if part == ".." {
                return Err(Errno::NOENT);
            }
            here = make_child_directory(&here, part)?;
        }
        Ok(here)
    }

    /// The file at `path` as a place; an empty one is made where missing, with its parents.
    pub(super) fn make_file(&self, path: &str) -> Result<OwnedFd> {
        match self.place(path) {
            Err(Errno::NOENT) => {}
            done => return done,
        }
        let (parent, name) = self.make_parent(path)?;
        let file = openat2(
            &parent,
            name,
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o755),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )?;
        drop(file);
        child(&parent, name)
    }

    /// The directory that holds `path`, made where missing, and the last name of `path`.
    pub(super) fn make_parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str)> {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
        if matches!(name, "" | "." | "..") {
            return Err(Errno::INVAL);
        }
        Ok((self.make_directory(if parent.is_empty() { "/" } else { parent })?, name))
    }
}

/// Opens the entry `name` of `directory` as a place, and never what a link there points to.
pub(super) fn child(directory: &OwnedFd, name: &str) -> Result<OwnedFd> {
    open_with(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens below `directory` without following any link: for trees that must not have one.
pub(super) fn open_beneath(directory: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    open_with(
        directory,
        path,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// What `name` in `directory` is, links not followed.
pub(super) fn stat_child(directory: &OwnedFd, name: &str) -> Result<Stat> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn is_directory(file: impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}

fn make_child_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        // Somebody else was quicker; whatever it is, the open below decides.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    open_beneath(parent, name, OFlags::PATH | OFlags::DIRECTORY)
}

fn open_with(directory: &OwnedFd, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests;
