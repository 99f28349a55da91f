//! Mount points in a read-only rootfs.
//!
//! The guest makes the mount points that are missing, but not here: what it sees is read-only from its first look. runc
//! makes them in the bundle's own rootfs, before it turns read-only, and so does this, on the host.
//!
//! Every path is resolved inside the rootfs (RESOLVE_IN_ROOT): a symlink in it leads nowhere else.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use bulkhead_protocol::container::{Mount, MountSource};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2},
    io::Errno,
};

use super::source::Export;

#[derive(Debug, thiserror::Error)]
#[error("make mount point {} in the rootfs", .destination)]
pub(crate) struct MountPointError {
    destination: String,
    source: io::Error,
}

/// Makes what is missing for `mounts`; what lies below an earlier mount is that mount's own business. A tmpfs takes the mode
/// of its mount point, but of one that the image has: with one of ours it keeps its own, as with runc.
pub(crate) fn make(rootfs: &Path, mounts: &mut [Mount], exports: &[Export]) -> Result<(), MountPointError> {
    let failed = |destination: &str, errno: Errno| MountPointError {
        destination: destination.to_owned(),
        source: errno.into(),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(rootfs, flags, Mode::empty()).map_err(|errno| failed("/", errno))?;
    for index in 0..mounts.len() {
        let (earlier, rest) = mounts.split_at_mut(index);
        let Some(mount) = rest.first_mut() else { break };
        if mount.source == MountSource::Remount {
            continue;
        }
        let destination = Path::new(&mount.destination);
        if earlier.iter().any(|earlier| destination.starts_with(&earlier.destination)) {
            continue;
        }
        let made = make_one(root.as_fd(), destination, is_file(mount, exports))
            .map_err(|errno| failed(&mount.destination, errno))?;
        if made && mount.source.is_tmpfs() && !mount.data.iter().any(|option| option.starts_with("mode=")) {
            mount.data.push("mode=1777".to_owned());
        }
    }
    Ok(())
}

/// A file is mounted on a file.
fn is_file(mount: &Mount, exports: &[Export]) -> bool {
    let MountSource::Export { name } = &mount.source else { return false };
    exports.iter().any(|export| export.share == *name && !export.directory)
}

/// True when it was missing.
fn make_one(root: BorrowedFd<'_>, destination: &Path, file: bool) -> Result<bool, Errno> {
    let mut was_missing = false;
    let mut made = PathBuf::from(".");
    let mut parent: Option<OwnedFd> = None;
    let names: Vec<_> = destination
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    for (index, name) in names.iter().enumerate() {
        let last = index + 1 == names.len();
        made.push(name);
        let open = |flags| {
            openat2(root, &made, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
        };
        let found = if last { open(OFlags::empty()) } else { open(OFlags::DIRECTORY) };
        parent = Some(match found {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                let here = parent.as_ref().map_or(root, AsFd::as_fd);
                create(here, Path::new(name), last && file)?;
                was_missing = last;
                open(OFlags::NOFOLLOW)?
            }
            Err(errno) => return Err(errno),
        });
    }
    Ok(was_missing)
}

fn create(parent: BorrowedFd<'_>, name: &Path, file: bool) -> Result<(), Errno> {
    let made = if file {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        mkdirat(parent, name, Mode::from_raw_mode(0o755))
    };
    match made {
        // Somebody else was quicker.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests;
