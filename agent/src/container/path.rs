//! Paths of the container, resolved so that nothing in it can lead outside.
//!
//! A `Root` is the directory that "/" means. Every path goes through openat2: symbolic links and `..` stop at the
//! root, magic links of /proc are refused. What is made is made by name in a directory descriptor, never by a
//! path, so a container that renames or links things meanwhile (it may share the rootfs) gains nothing.
//!
//! What was mounted is held, and a path below it starts there: a mount moves with the directory that it lies on, and
//! whoever shares the rootfs may rename that and put another in its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags, mkdirat, openat2,
        statat, statx,
    },
    io::{Errno, Result},
};

/// openat2 answers EAGAIN when a rename somewhere in the system made `..` unsure. Rare: a few tries are enough.
const TRIES: usize = 64;

#[derive(Debug)]
pub(super) struct Root {
    top: OwnedFd,
    /// Directories that were mounted, in the order of their mounting.
    held: Vec<Held>,
}

/// What was mounted on a path of the container.
#[derive(Debug)]
struct Held {
    components: Vec<String>,
    mounted: OwnedFd,
}

impl From<OwnedFd> for Root {
    fn from(top: OwnedFd) -> Self {
        Self { top, held: Vec::new() }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

impl Root {
    /// Opens what is there; links are followed inside the root.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        if let Some((mounted, below)) = self.held(path) {
            match open_beneath(mounted, &below, flags) {
                // A link may lead out of the mount, which only the whole way from the root tells.
                Err(Errno::LOOP) => {}
                done => return done,
            }
        }
        open_with(&self.top, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Remembers what was mounted at `place`, which `path` was resolved to, unless that is a file.
    pub(super) fn hold(&mut self, path: &str, place: &OwnedFd, mounted: OwnedFd) -> Result<()> {
        if !is_directory(&mounted)? {
            return Ok(());
        }
        // The path may have led through a link to a mount of another name, which is now covered.
        if let Some(covered) = mount_of_root(place)? {
            for held in &mut self.held {
                if mount_of_root(&held.mounted)? == Some(covered) {
                    held.mounted = rustix::io::fcntl_dupfd_cloexec(&mounted, 3)?;
                }
            }
        }
        if let Some(components) = components(path) {
            let components = components.into_iter().map(str::to_owned).collect();
            self.held.push(Held { components, mounted });
        }
        Ok(())
    }

    /// Forgets what was mounted: all that is looked up from now on is looked up from the top.
    pub(super) fn let_go(&mut self) {
        self.held.clear();
    }

    /// The mount that `path` is in, by its name, and the rest of the path.
    fn held(&self, path: &str) -> Option<(&OwnedFd, String)> {
        let components = components(path)?;
        let has = |held: &&Held| {
            held.components.len() <= components.len()
                && held.components.iter().zip(&components).all(|(a, b)| a == b)
        };
        // Of those on one path, the last covers the others. One that was mounted above a deeper one later covers that.
        let found = self.held.iter().rev().find(has)?;
        let below = components[found.components.len()..].join("/");
        Some((&found.mounted, if below.is_empty() { ".".to_owned() } else { below }))
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
        make_child_file(&parent, name)
    }

    /// As `make_file`, but a link at `path` itself is not followed: what is answered is then the link.
    pub(super) fn make_own_file(&self, path: &str) -> Result<OwnedFd> {
        let (parent, name) = self.make_parent(path)?;
        match child(&parent, name) {
            Err(Errno::NOENT) => make_child_file(&parent, name),
            done => done,
        }
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

/// The mount whose root this is, by its number.
fn mount_of_root(place: &OwnedFd) -> Result<Option<u64>> {
    let found = statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT).then_some(found.stx_mnt_id))
}

/// What `name` in `directory` is, links not followed.
pub(super) fn stat_child(directory: &OwnedFd, name: &str) -> Result<Stat> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn is_directory(file: impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}

/// The directory `name` of `parent`, made (mode 0755) where missing. ELOOP or ENOTDIR when a link is there.
pub(super) fn make_child_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        // Somebody else was quicker; whatever it is, the open below decides.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    open_beneath(parent, name, OFlags::PATH | OFlags::DIRECTORY)
}

/// A new empty file, as a place.
fn make_child_file(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let file = openat2(
        parent,
        name,
        OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o755),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )?;
    drop(file);
    child(parent, name)
}

/// The names of a path without `..`, which only the filesystem can resolve.
fn components(path: &str) -> Option<Vec<&str>> {
    let components: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!components.contains(&"..")).then_some(components)
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
