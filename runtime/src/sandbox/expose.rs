//! Shows a container's rootfs and volumes to the guest, as the caller of its `create` sees them.
//!
//! Engines keep a rootfs on a mount that is private, podman and docker both do: what a caller has mounted since the server was
//! made does not arrive in the server's own mount namespace. A later container's exports are opened in that of its proxy.

use std::{
    borrow::Cow,
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use bulkhead_protocol::container::ContainerSpec;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe};

use super::{
    mount_points::{self, MountPointError},
    share::{Export, Share, ShareError, open_all},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExposeError {
    #[error("look into the caller's mount namespace")]
    Caller { source: io::Error },
    #[error(transparent)]
    MountPoint(#[from] MountPointError),
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// Gives back the spec for the guest, in which a read-only rootfs has all mount points. `exports` has the rootfs first.
/// `caller` is the pidfd of a process with the mounts of who creates the container; `None` has this process's own.
pub(crate) fn expose<'p>(
    share: &Share,
    exports: &[Export],
    guest: &'p ContainerSpec,
    caller: Option<&OwnedFd>,
) -> Result<Cow<'p, ContainerSpec>, ExposeError> {
    let open = || -> Result<_, ExposeError> {
        let mut guest = Cow::Borrowed(guest);
        if let Some(rootfs) = exports.first().filter(|rootfs| rootfs.read_only) {
            mount_points::make(&rootfs.source, &mut guest.to_mut().mounts, exports)?;
        }
        Ok((guest, open_all(exports)?))
    };
    let (guest, trees) = match caller {
        None => open(),
        Some(pidfd) => visit(pidfd, open).map_err(|source| ExposeError::Caller { source })?,
    }?;
    for (export, tree) in exports.iter().zip(&trees) {
        share.add(export, tree)?;
    }
    Ok(guest)
}

/// Runs `work` on a thread of its own in the mount namespace of the process behind `pidfd`. What it opens stays open.
fn visit<T: Send>(pidfd: &OwnedFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let inside = || {
        // SAFETY: root and working directory stop being shared, for this thread alone, which needs neither; setns(2) asks
        // for it. No descriptor table is unshared.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::MOUNT)?;
        Ok(work())
    };
    thread::scope(|scope| {
        let visitor = thread::Builder::new().name("mount-namespace".into()).spawn_scoped(scope, inside)?;
        visitor.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside panicked")))
    })
}
