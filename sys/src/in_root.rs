//! Paths inside a root that somebody else fills: nothing in it can lead outside, and what a path lacks is made.
//!
//!   path ─component by component─▶ there: go on │ a link to nothing: its target comes next │ missing: made in its directory
//!
//! Links and `..` stop at the root (openat2 with RESOLVE_IN_ROOT), and magic links of procfs are refused. What is made is made by
//! name in a directory descriptor, never by a path: whoever renames or links things meanwhile gains nothing.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, readlinkat},
    io::{Errno, Result},
};

/// openat2 answers EAGAIN when a rename somewhere in the system made `..` unsure. Rare: a few tries are enough.
const TRIES: usize = 64;
/// Links that are followed on one way, as many as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// What is made where a path names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Directory,
    /// An empty file with these permission bits.
    File(u32),
}

/// The end of a path.
#[derive(Debug)]
pub struct Place {
    /// With O_PATH.
    pub fd: OwnedFd,
    /// Nothing was there before.
    pub made: bool,
}

/// Opens `path`, which is absolute, inside `root`. Links are followed there.
///
/// # Errors
/// As openat2(2): `ELOOP` also for a magic link.
pub fn open(root: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    open_with(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens below `directory` without following any link: for trees that must not have one.
///
/// # Errors
/// As openat2(2): `ELOOP` for a link, `EXDEV` for a way out.
pub fn open_beneath(directory: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    open_with(
        directory,
        path,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens the entry `name` of `directory` as a place, and never what a link there points to.
///
/// # Errors
/// As openat2(2).
pub fn child(directory: impl AsFd, name: &str) -> Result<OwnedFd> {
    open_with(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// The end of `path`, made where it is missing, with the directories above it (mode 0755). A link to nothing is followed, and
/// what it names is made. After a missing component `..` takes that back: nothing there could be a link.
///
/// `open` opens absolute paths inside the root, as [`open`] does.
///
/// # Errors
/// `ENOTDIR` for a file on the way, `ELOOP` for links without an end, and whatever forbids to make something.
pub fn make(open: impl Fn(&str, OFlags) -> Result<OwnedFd>, path: &str, missing: Missing) -> Result<Place> {
    let flags = |last: bool| match missing {
        Missing::File(_) if last => OFlags::PATH,
        Missing::File(_) | Missing::Directory => OFlags::PATH | OFlags::DIRECTORY,
    };
    match open(path, flags(true)) {
        Err(Errno::NOENT) => {}
        found => return Ok(Place { fd: found?, made: false }),
    }
    let top = || open("/", OFlags::PATH | OFlags::DIRECTORY);
    let mut here = Place { fd: top()?, made: false };
    // The path of `here`. It need not be plain: it is only ever resolved again, inside the root.
    let mut at = String::new();
    // The last one comes next.
    let mut left: Vec<String> = components(path).rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(name) = left.pop() {
        let next = format!("{at}/{name}");
        match open(&next, flags(left.is_empty())) {
            Err(Errno::NOENT) => {}
            found => {
                (here, at) = (Place { fd: found?, made: false }, next);
                continue;
            }
        }
        match child(&here.fd, &name) {
            Err(Errno::NOENT) => {
                if take_back(&name, &mut left) {
                    continue;
                }
                let fd = match missing {
                    Missing::File(mode) if left.is_empty() => make_file_in(&here.fd, &name, mode)?,
                    Missing::File(_) | Missing::Directory => make_directory_in(&here.fd, &name)?,
                };
                (here, at) = (Place { fd, made: true }, next);
            }
            found => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                match target(&found?)? {
                    Some(target) => {
                        if target.starts_with('/') {
                            (here, at) = (Place { fd: top()?, made: false }, String::new());
                        }
                        left.extend(components(&target).rev().map(str::to_owned));
                    }
                    // It has come meanwhile.
                    None => left.push(name),
                }
            }
        }
    }
    Ok(here)
}

/// The directory `name` of `parent`, made (mode 0755) where missing.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` when something else is there, and whatever forbids to make it.
pub fn make_directory_in(parent: impl AsFd, name: &str) -> Result<OwnedFd> {
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        // Somebody else was quicker; whatever it is, the open below decides.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    open_beneath(parent, name, OFlags::PATH | OFlags::DIRECTORY)
}

/// A new empty file in `parent`, as a place.
///
/// # Errors
/// `EEXIST` when something is there, and whatever forbids to make it.
pub fn make_file_in(parent: impl AsFd, name: &str, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    drop(openat2(&parent, name, flags, Mode::from_raw_mode(mode), resolve)?);
    child(parent, name)
}

/// Where a link leads; `None` for what is none.
///
/// # Errors
/// `EILSEQ` for a target that is no text.
pub fn target(place: impl AsFd) -> Result<Option<String>> {
    if FileType::from_raw_mode(fstat(&place)?.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    readlinkat(place, "", Vec::new())?.into_string().map(Some).map_err(|_| Errno::ILSEQ)
}

/// The names of a path, `..` among them.
pub fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// Whether a `..` in `left` takes back a name before it; `missing` comes before all of them and is left out then, or goes
/// back into it.
fn take_back(missing: &str, left: &mut Vec<String>) -> bool {
    let mut ahead = vec![missing.to_owned()];
    let mut taken = false;
    for name in left.drain(..).rev() {
        if name == ".." && ahead.last().is_some_and(|before| before != "..") {
            ahead.pop();
            taken = true;
        } else {
            ahead.push(name);
        }
    }
    ahead.reverse();
    *left = ahead;
    if !taken {
        left.pop();
    }
    taken
}

fn open_with(directory: impl AsFd, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        match openat2(&directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests;
