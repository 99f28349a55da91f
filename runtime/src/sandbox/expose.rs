//! Shows a container's rootfs and volumes to the guest, as the caller of its `create` sees them.
//!
//! Engines keep a rootfs on a mount that is private, podman and docker both do: what a caller has mounted since the server was
//! made does not arrive in the server's own mount namespace. A container's exports are opened in that of its proxy.

use std::{borrow::Cow, io, os::fd::OwnedFd};

use bulkhead_protocol::container::ContainerSpec;
use bulkhead_sys::namespace::visit_mounts_of;

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

/// Gives back the spec for the guest. A read-only rootfs has all mount points and the working directory then. `exports` has the rootfs first.
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
            let guest = guest.to_mut();
            mount_points::make(&rootfs.source, &mut guest.mounts, exports)?;
            mount_points::make_working_directory(&rootfs.source, &guest.process.cwd, &guest.mounts)?;
        }
        Ok((guest, open_all(exports)?))
    };
    let (guest, trees) = match caller {
        None => open(),
        Some(pidfd) => visit_mounts_of(pidfd, open).map_err(|source| ExposeError::Caller { source })?,
    }?;
    for (export, tree) in exports.iter().zip(&trees) {
        share.add(export, tree)?;
    }
    Ok(guest)
}
