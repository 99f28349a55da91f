//! The pod's share: a directory tree of bind mounts that is the VMM's root and that the guest sees as one filesystem.
//!
//!   <state>/share/            read-only, so that a guest cannot fill the host's /run
//!     <id>/rootfs             bind of the bundle's rootfs
//!     <id>/mounts/<n>         binds of its volumes, read-only where the spec says so
//!
//! All of it is mounted in a mount namespace that the server makes for itself: when the server and the VMM are gone, by
//! whatever cause, so are the mounts. The namespace is a slave of the host's, so that later sources of the host are found
//! and none of our mounts leave. The share itself is a shared mount: what the server adds later shows up in the VMM's jail.
//!
//! An export belongs to no peer group of the host's and is slave of none. As a peer its removal would unmount the host's own
//! mounts below the source; as a slave it would get what the host mounts there later, without the export's attributes,
//! and the host could not unmount that while the guest uses it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use bulkhead_protocol::container::{IdMap, IdMapping, SharePath};
use bulkhead_sys::{
    mount::{self, Attributes},
    user_namespace::{Mapping, with_maps},
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

/// One host path that the guest may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Absolute; a directory or a regular file.
    pub source: PathBuf,
    pub share: SharePath,
    pub directory: bool,
    pub read_only: bool,
    /// With `read_only`: the mounts below it as well.
    pub read_only_recursive: bool,
    /// Mounts below the source come along.
    pub recursive: bool,
    /// Its owners are seen as others: all accesses of the VMM go through the map.
    pub id_map: Option<IdMap>,
}

/// A guest may make setuid programs in its volumes, and there may be device nodes: neither means anything to a process of the
/// host that looks through the export. The guest's kernel goes by its own mounts. Not noexec, which access(2) shows.
const HARMLESS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

#[derive(Debug, thiserror::Error)]
pub(super) enum ShareError {
    #[error("enter a mount namespace for the sandbox")]
    Namespace { source: io::Error },
    #[error("mount the share {}", .path.display())]
    Share { path: PathBuf, source: io::Error },
    #[error("share {}", .path.display())]
    Export { path: PathBuf, source: io::Error },
    #[error("map the ids of {}, whose filesystem must be able to", .path.display())]
    IdMap { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub(super) struct Share {
    path: PathBuf,
    /// The directory below the read-only mount: mount points are made here and show up there.
    below: OwnedFd,
}

impl Share {
    /// Moves this process into its own mount namespace and mounts the empty share there. Call it before there is any
    /// thread: a namespace belongs to a thread.
    pub(super) fn enter(path: &Path) -> Result<Self, ShareError> {
        let namespace = |e: Errno| ShareError::Namespace { source: e.into() };
        let share = |e: Errno| ShareError::Share { path: path.to_owned(), source: e.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(share(errno)),
        }
        let below = rustix::fs::open(path, flags, Mode::empty()).map_err(share)?;
        // SAFETY: only the mount namespace (and with it root and working directory) stops being shared, and no other
        // thread exists yet that could rely on sharing them; no descriptor table is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(namespace)?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).map_err(namespace)?;
        rustix::mount::mount_bind(path, path).map_err(share)?;
        rustix::mount::mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, "").map_err(share)?;
        // Private first: a bind of a slave is a slave too, and nothing of the host's may come in by itself.
        for kind in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
            rustix::mount::mount_change(path, kind).map_err(share)?;
        }
        Ok(Self { path: path.to_owned(), below })
    }

    /// For the VMM: its root directory to be.
    pub(super) fn open(&self) -> Result<OwnedFd, ShareError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|e| ShareError::Share { path: self.path.clone(), source: e.into() })
    }

    /// Shows what `tree` has, which is of `export`, to the guest, under a name that it has not seen before.
    pub(super) fn add(&self, export: &Export, tree: &OwnedFd) -> Result<(), ShareError> {
        let path = || export.source.clone();
        if let Some(map) = &export.id_map {
            map_ids(tree, map).map_err(|source| ShareError::IdMap { path: path(), source })?;
        }
        self.attach(tree, export).map_err(|errno| ShareError::Export { path: path(), source: errno.into() })
    }

    fn attach(&self, tree: &OwnedFd, export: &Export) -> Result<(), Errno> {
        self.make_mount_point(export.share.as_str(), export.directory)?;
        let target = self.path.join(export.share.as_str());
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(tree, "", rustix::fs::CWD, &target, flags)
    }

    fn make_mount_point(&self, path: &str, directory: bool) -> Result<(), Errno> {
        let made = |result| match result {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        };
        let mode = Mode::from_raw_mode(0o755);
        for (end, _) in path.match_indices('/') {
            made(rustix::fs::mkdirat(&self.below, &path[..end], mode))?;
        }
        if directory {
            return made(rustix::fs::mkdirat(&self.below, path, mode));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.below, path, flags, Mode::from_raw_mode(0o644)).map(drop)
    }

    /// Takes a path away again. The guest has unmounted it; what it still holds open stays until it lets go.
    pub(super) fn remove(&self, export: &Export) {
        let target = self.path.join(export.share.as_str());
        // Lazily: the jail's copy of the mount may still be looked at.
        let _ = rustix::mount::unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let flags = if export.directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let _ = rustix::fs::unlinkat(&self.below, export.share.as_str(), flags);
    }
}

impl Share {
    /// Detaches the share with all that is mounted in it, from this process's namespace.
    pub(super) fn unmount(&self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

/// On the host and not in the guest: there every directory of the share is a filesystem of its own, which Linux 6.12 does not
/// let have an id map. The filesystem of the volume must be able to (ext4, xfs, btrfs; tmpfs since 6.3).
fn map_ids(tree: &OwnedFd, map: &IdMap) -> io::Result<()> {
    let mapping = |m: &IdMapping| Mapping { inside: m.container, outside: m.host, count: m.size };
    let mappings = |list: &[IdMapping]| list.iter().map(mapping).collect::<Vec<_>>();
    let namespace = with_maps(&mappings(&map.uids), &mappings(&map.gids))?;
    Ok(mount::map_ids(tree, &namespace, map.recursive)?)
}

/// Opens what a container shares, in this thread's mount namespace.
pub(super) fn open_all(exports: &[Export]) -> Result<Vec<OwnedFd>, ShareError> {
    let open = |export: &Export| {
        let failed = |errno: Errno| ShareError::Export { path: export.source.clone(), source: errno.into() };
        open_export(export).map_err(failed)
    };
    exports.iter().map(open).collect()
}

/// A detached copy of the source's mount, with the attributes of the export. It is private, with all mounts below it.
pub(crate) fn open_export(export: &Export) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, export.recursive);
    let place = open_source(&export.source, export.directory)?;
    let tree = rustix::mount::open_tree(&place, "", flags)?;
    // The copy of a shared mount is a peer of it, that of a slave a slave of the same master. Before all else: what arrives
    // until then is below the tree, and gets the attributes that follow.
    Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() }.recursive().apply(&tree)?;
    Attributes { set: HARMLESS, ..Attributes::default() }.recursive().apply(&tree)?;
    if export.read_only {
        set_read_only(tree.as_fd(), export.read_only_recursive)?;
    }
    Ok(tree)
}

/// The path was resolved when the spec was read. What was put in its place since, by a container that may write
/// there, is not followed: no link is, and nothing but a directory or a regular file is opened.
fn open_source(path: &Path, directory: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place = rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), links)?;
    match (FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode), directory) {
        (FileType::Directory, true) | (FileType::RegularFile, false) => Ok(place),
        (_, true) => Err(Errno::NOTDIR),
        (FileType::Directory, false) => Err(Errno::ISDIR),
        (_, false) => Err(Errno::OPNOTSUPP),
    }
}

/// Before the mount is attached anywhere, so there is no moment in which it could be written.
pub(crate) fn set_read_only(tree: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    Attributes { recursive, ..Attributes::read_only() }.apply(tree)
}

#[cfg(test)]
mod tests;
