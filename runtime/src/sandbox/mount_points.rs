//! Mount points and the working directory in a read-only rootfs.
//!
//! The guest makes the mount points that are missing, but not here: what it sees is read-only from its first look. runc
//! makes them in the bundle's own rootfs, before it turns read-only, and so does this, on the host.
//!
//! Every path is resolved inside the rootfs (`sys::in_root`): a symlink in it leads nowhere else.

use std::{io, os::fd::OwnedFd, path::Path};

use bulkhead_protocol::container::{Mount, MountSource};
use bulkhead_sys::in_root::{self, Missing};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

use crate::spec::{Export, ExportKind};

#[derive(Debug, thiserror::Error)]
#[error("make {what} {path} in the rootfs")]
pub(crate) struct MountPointError {
    what: &'static str,
    path: String,
    source: io::Error,
}

impl MountPointError {
    fn new(what: &'static str, path: &str, errno: Errno) -> Self {
        Self { what, path: path.to_owned(), source: errno.into() }
    }
}

/// Makes what is missing for `mounts`; what lies below an earlier mount is that mount's own business. A tmpfs takes the mode
/// of its mount point, but of one that the image has: with one of ours it keeps its own, as with runc.
pub(crate) fn make(rootfs: &Path, mounts: &mut [Mount], exports: &[Export]) -> Result<(), MountPointError> {
    let failed = |path: &str, errno| MountPointError::new("mount point", path, errno);
    let root = open_root(rootfs).map_err(|errno| failed("/", errno))?;
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
        let missing = if is_file(mount, exports) { Missing::File(0o644) } else { Missing::Directory };
        let open = |path: &str, flags| in_root::open(&root, path, flags);
        let place = in_root::make(open, &mount.destination, missing)
            .map_err(|errno| failed(&mount.destination, errno))?;
        if place.made
            && mount.source.is_tmpfs()
            && !mount.data.iter().any(|option| option.starts_with("mode="))
        {
            mount.data.push("mode=1777".to_owned());
        }
    }
    Ok(())
}

/// Makes the working directory where it is missing, as the guest does in a rootfs that it may write to.
pub(crate) fn make_working_directory(
    rootfs: &Path,
    path: &str,
    mounts: &[Mount],
) -> Result<(), MountPointError> {
    if mounts.iter().any(|mount| Path::new(path).starts_with(&mount.destination)) {
        return Ok(());
    }
    let made = open_root(rootfs).and_then(|root| {
        in_root::make(|path, flags| in_root::open(&root, path, flags), path, Missing::Directory)
    });
    made.map(drop).map_err(|errno| MountPointError::new("working directory", path, errno))
}

fn open_root(rootfs: &Path) -> Result<OwnedFd, Errno> {
    open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A file is mounted on a file.
fn is_file(mount: &Mount, exports: &[Export]) -> bool {
    let MountSource::Export { name } = &mount.source else { return false };
    exports.iter().any(|export| export.share == *name && export.kind != ExportKind::Directory)
}

#[cfg(test)]
mod tests;
