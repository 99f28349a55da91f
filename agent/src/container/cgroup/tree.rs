//! Walks a tree of cgroups however deep it is: a container makes its own, and the kernel sets no limit.
//!
//! One descriptor at a time, and never a path, which may be longer than the kernel takes. The way up is `..`: a cgroup
//! cannot be moved to another parent.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat},
    io::Errno,
};

/// What is done on the way.
pub(super) trait Visitor {
    /// Each directory, before those in it.
    fn enter(&mut self, directory: &OwnedFd) -> io::Result<()>;
    /// Each directory but the top, with its parent, after those in it.
    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()>;
}

/// A top that is not there is a tree of nothing.
pub(super) fn walk(top: &Path, visitor: &mut impl Visitor) -> io::Result<()> {
    let Some(mut here) = gone_is_none(openat(CWD, top, FLAGS, Mode::empty()))? else { return Ok(()) };
    visitor.enter(&here)?;
    // From the top to here: the name below its parent, and what is still to be visited in it.
    let mut way: Vec<(CString, Vec<CString>)> = vec![(CString::default(), children(&here)?)];
    while let Some((_, left)) = way.last_mut() {
        if let Some(name) = left.pop() {
            let Some(child) = gone_is_none(openat(&here, &name, FLAGS | OFlags::NOFOLLOW, Mode::empty()))?
            else {
                continue;
            };
            visitor.enter(&child)?;
            way.push((name, children(&child)?));
            here = child;
        } else if let Some((name, _)) = way.pop()
            && !way.is_empty()
        {
            here = openat(&here, "..", FLAGS, Mode::empty())?;
            visitor.leave(&here, &name)?;
        }
    }
    Ok(())
}

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn children(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = match entry {
            // Removed meanwhile.
            Err(Errno::NOENT | Errno::NODEV) => break,
            entry => entry?,
        };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes it and all below it. EBUSY while a process is left.
pub(super) fn remove(top: &Path) -> io::Result<()> {
    struct Remove;
    impl Visitor for Remove {
        fn enter(&mut self, _: &OwnedFd) -> io::Result<()> {
            Ok(())
        }

        fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
            gone_is_none(unlinkat(parent, name, AtFlags::REMOVEDIR)).map(drop)
        }
    }
    walk(top, &mut Remove)?;
    gone_is_none(unlinkat(CWD, top, AtFlags::REMOVEDIR)).map(drop)
}

fn gone_is_none<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        result => Ok(Some(result?)),
    }
}
