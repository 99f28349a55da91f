//! Paths of the container, resolved so that nothing in it can lead outside.
//!
//! A `Root` is the directory that "/" means. Every path goes through `sys::in_root`: links and `..` stop at the root, and what
//! is missing is made there, so a container that renames or links things meanwhile (it may share the rootfs) gains nothing.
//!
//! What was mounted is held, and a path below it starts there: a mount moves with the directory that it lies on, and
//! whoever shares the rootfs may rename that and put another in its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::in_root::{self, Missing, make_file_in};
pub(super) use bulkhead_sys::in_root::{child, make_directory_in as make_child_directory, open_beneath};
use rustix::{
    fs::{AtFlags, FileType, OFlags, Stat, StatxAttributes, StatxFlags, statat, statx},
    io::{Errno, Result},
};

/// Of a file that is made to be mounted on, as with runc.
const FILE_MODE: u32 = 0o755;
/// Links that are followed to a device (path_resolution(7)).
const LINKS: usize = 40;

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
        in_root::open(&self.top, path, flags)
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

    /// The directory at `path`, made with its parents (mode 0755) where missing, also where a link leads to nothing.
    pub(super) fn make_directory(&self, path: &str) -> Result<OwnedFd> {
        self.make(path, Missing::Directory)
    }

    /// The file at `path` as a place; an empty one is made where missing, with its parents, also where a link leads to nothing.
    pub(super) fn make_file(&self, path: &str) -> Result<OwnedFd> {
        self.make(path, Missing::File(FILE_MODE))
    }

    fn make(&self, path: &str, missing: Missing) -> Result<OwnedFd> {
        Ok(in_root::make(|path, flags| self.open(path, flags), path, missing)?.fd)
    }

    /// As `make_file`, but a link at `path` itself is not followed: what is answered is then the link.
    pub(super) fn make_own_file(&self, path: &str) -> Result<OwnedFd> {
        let (parent, name) = self.make_parent(path)?;
        match child(&parent, name) {
            Err(Errno::NOENT) => make_file_in(&parent, name, FILE_MODE),
            done => done,
        }
    }

    /// The directory that holds `path`, made where missing, and the last name of `path`.
    pub(super) fn make_parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str)> {
        let (parent, name) = split(path)?;
        Ok((self.make_directory(&parent)?, name))
    }

    /// As `make_parent`, of what a link at `path` leads to, in the end.
    pub(super) fn make_parent_of_target(&self, path: &str) -> Result<(OwnedFd, String)> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let (above, name) = split(&path)?;
            let parent = self.make_directory(&above)?;
            let target = match child(&parent, name) {
                Err(Errno::NOENT) => None,
                found => in_root::target(found?)?,
            };
            let Some(target) = target else { return Ok((parent, name.to_owned())) };
            path = if target.starts_with('/') { target } else { format!("{above}/{target}") };
        }
        Err(Errno::LOOP)
    }
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

/// The path of the directory that holds `path`, and the last name.
fn split(path: &str) -> Result<(String, &str)> {
    let mut names = in_root::components(path);
    let name = names.next_back().filter(|name| *name != "..").ok_or(Errno::INVAL)?;
    let parent: String = names.flat_map(|name| ["/", name]).collect();
    Ok((if parent.is_empty() { "/".to_owned() } else { parent }, name))
}

/// The names of a path without `..`, which only the filesystem can resolve.
fn components(path: &str) -> Option<Vec<&str>> {
    let components: Vec<&str> = in_root::components(path).collect();
    (!components.contains(&"..")).then_some(components)
}

#[cfg(test)]
mod tests;
