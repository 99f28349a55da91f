//! Shows a container's rootfs and volumes to the guest, as the caller of its `create` sees them.
//!
//! Engines keep a rootfs on a mount that is private, podman and docker both do: what a caller has mounted since the server was
//! made does not arrive in the server's own mount namespace. A later container's exports are opened in that of its proxy.

use std::{borrow::Cow, io, os::fd::OwnedFd};

use bulkhead_protocol::container::ContainerSpec;
use bulkhead_sys::namespace::visit_mounts_of;

use super::{
    mount_points::{self, MountPointError},
    plan::ContainerPlan,
    share::{Share, ShareError, open_all},
};

#[derive(Debug, thiserror::Error)]
pub(super) enum ExposeError {
    #[error("look into the caller's mount namespace")]
    Caller { source: io::Error },
    #[error(transparent)]
    MountPoint(#[from] MountPointError),
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// Gives back the plan for the guest, in which a read-only rootfs has all mount points. `caller` is a pidfd, and `None` for the
/// first container: its caller made this server, so the mounts are the same.
pub(super) fn expose<'p>(
    share: &Share,
    plan: &'p ContainerPlan,
    caller: Option<&OwnedFd>,
) -> Result<Cow<'p, ContainerSpec>, ExposeError> {
    let open = || -> Result<_, ExposeError> {
        let mut guest = Cow::Borrowed(&plan.guest);
        if let Some(rootfs) = plan.exports.first().filter(|rootfs| rootfs.read_only) {
            mount_points::make(&rootfs.source, &mut guest.to_mut().mounts, &plan.exports)?;
        }
        Ok((guest, open_all(&plan.exports)?))
    };
    let (guest, trees) = match caller {
        None => open(),
        Some(pidfd) => visit_mounts_of(pidfd, open).map_err(|source| ExposeError::Caller { source })?,
    }?;
    for (export, tree) in plan.exports.iter().zip(&trees) {
        share.add(export, tree)?;
    }
    Ok(guest)
}
