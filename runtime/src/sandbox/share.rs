//! The pod's share: a directory tree of bind mounts that is the VMM's root and that the guest sees as one filesystem.
//!
//!   <state>/share/            read-only, so that a guest cannot fill the host's /run
//!     <id>/rootfs             bind of the bundle's rootfs
//!     @<n>                    volumes, each a source of the pod's containers
//!
//! All of it is mounted in a mount namespace that the server makes for itself: when the server and the VMM are gone, by
//! whatever cause, so are the mounts. The namespace is a slave of the host's, so that later sources of the host are found
//! and none of our mounts leave. The share itself is a shared mount: what the server adds later shows up in the VMM's jail.
//!
//! Volumes are the exception: the server mounts them in the jail's own namespace alone. What comes there from elsewhere is locked,
//! for the jail belongs to another user namespace: a read-only mount could never become writable, which a volume does when a
//! container asks for that. Whether it can is the server's to say: nobody in the jail may change a mount.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use bulkhead_protocol::container::{IdMap, IdMapping, SharePath};
use bulkhead_sys::{
    mount::{self, Attributes},
    namespace::visit_mounts_of,
    user_namespace::{Mapping, with_maps},
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
    mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, move_mount},
    thread::UnshareFlags,
};

use crate::spec::{Export, ExportKind};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    #[error("enter a mount namespace for the sandbox")]
    Namespace { source: io::Error },
    #[error("mount the share {}", .path.display())]
    Share { path: PathBuf, source: io::Error },
    #[error("share {}", .path.display())]
    Export { path: PathBuf, source: io::Error },
    #[error("map the ids of {}, whose filesystem must be able to", .path.display())]
    IdMap { path: PathBuf, source: io::Error },
    #[error("look into the mount namespace of the VMM, which takes CAP_SYS_ADMIN and CAP_SYS_PTRACE")]
    Jail { source: io::Error },
}

impl ShareError {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Namespace { source } if source.kind() == io::ErrorKind::PermissionDenied => Some(
                "start containers as root, or as a user by a rootless engine such as podman (docs/podman.md)",
            ),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Share {
    path: PathBuf,
    /// The directory below the read-only mount: mount points are made here and show up there.
    below: OwnedFd,
}

impl Share {
    /// Moves this process into its own mount namespace and mounts the empty share there. Call it before there is any
    /// thread: a namespace belongs to a thread.
    pub(crate) fn enter(path: &Path) -> Result<Self, ShareError> {
        let namespace = |e: Errno| ShareError::Namespace { source: e.into() };
        let share = |e: Errno| ShareError::Share { path: path.to_owned(), source: e.into() };
        let made = Self::at(path)?;
        // SAFETY: only the mount namespace (and with it root and working directory) stops being shared, and no other
        // thread exists yet that could rely on sharing them; no descriptor table is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(namespace)?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).map_err(namespace)?;
        rustix::mount::mount_bind(path, path).map_err(share)?;
        // Only adds to the attributes that are there: of a mount of another user namespace none may be taken away.
        let mounted = made.open_mounted().map_err(share)?;
        Attributes::read_only().apply(&mounted).map_err(share)?;
        // Private first: a bind of a slave is a slave too, and nothing of the host's may come in by itself.
        for kind in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
            rustix::mount::mount_change(path, kind).map_err(share)?;
        }
        Ok(made)
    }

    /// The directory alone.
    pub(crate) fn at(path: &Path) -> Result<Self, ShareError> {
        let share = |e: Errno| ShareError::Share { path: path.to_owned(), source: e.into() };
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(share(errno)),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = rustix::fs::open(path, flags, Mode::empty()).map_err(share)?;
        Ok(Self { path: path.to_owned(), below })
    }

    /// For the VMM: its root directory to be.
    pub(crate) fn open(&self) -> Result<OwnedFd, ShareError> {
        self.open_mounted().map_err(|e| ShareError::Share { path: self.path.clone(), source: e.into() })
    }

    /// What is mounted on the directory.
    fn open_mounted(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty())
    }

    /// Shows what `tree` has, which is of `export`, to the guest, under a name that it has not seen before.
    pub(crate) fn add(&self, export: &Export, tree: &OwnedFd) -> Result<(), ShareError> {
        let failed = |errno: Errno| ShareError::Export { path: export.source.clone(), source: errno.into() };
        self.make_mount_point(export.share.as_str(), export.kind == ExportKind::Directory).map_err(failed)?;
        let target = self.path.join(export.share.as_str());
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree, "", CWD, &target, flags).map_err(failed)
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
    pub(crate) fn remove(&self, export: &Export) {
        let target = self.path.join(export.share.as_str());
        // Lazily: the jail's copy of the mount may still be looked at.
        let _ = rustix::mount::unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        self.remove_volume(&export.share, export.kind == ExportKind::Directory);
    }

    /// Takes a volume away. It is mounted in the jail alone: the kernel unmounts what lies on a directory in another namespace
    /// when that is removed (rmdir(2) and unlink(2) since Linux 3.18), also when the VMM is no more.
    pub(crate) fn remove_volume(&self, name: &SharePath, directory: bool) {
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let _ = rustix::fs::unlinkat(&self.below, name.as_str(), flags);
    }

    /// Does `work` where the guest's files are: in the mount namespace of the VMM, a process behind a pidfd, whose root is the share.
    ///
    /// # Errors
    /// When this process may not look there; or what `work` answers.
    pub(crate) fn in_jail<T: Send>(
        &self,
        vmm: &OwnedFd,
        work: impl FnOnce(Jail<'_>) -> Result<T, ShareError> + Send,
    ) -> Result<T, ShareError> {
        let share = self;
        visit_mounts_of(vmm, || work(Jail { share })).map_err(|source| ShareError::Jail { source })?
    }
}

/// The mount namespace of the VMM, which the thread is in.
#[derive(Debug)]
pub(crate) struct Jail<'share> {
    share: &'share Share,
}

impl Jail<'_> {
    /// The root of the share, with all volumes.
    pub(crate) fn root(&self) -> Result<OwnedFd, ShareError> {
        place("/").map_err(|e| ShareError::Share { path: self.share.path.clone(), source: e.into() })
    }

    /// Whether a path in a volume leads to this object: device and inode number. No link is followed.
    pub(crate) fn leads_to(&self, volume: &SharePath, path: &SharePath, object: (u64, u64)) -> bool {
        let found = place(&format!("/{}/{}", volume.as_str(), path.as_str())).and_then(fstat);
        found.is_ok_and(|found| (found.st_dev, found.st_ino) == object)
    }

    /// Mounts a volume that is not there yet. `tree` has all attributes already.
    pub(crate) fn add(&self, volume: &SharePath, tree: &OwnedFd, directory: bool) -> Result<(), Errno> {
        self.share.make_mount_point(volume.as_str(), directory)?;
        let target = place(&format!("/{}", volume.as_str()))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree, "", target, "", flags)
    }

    /// Lets the guest write to a volume that was read-only. What it has open stays as it is.
    pub(crate) fn make_writable(&self, volume: &SharePath) -> Result<(), Errno> {
        let mounted = place(&format!("/{}", volume.as_str()))?;
        Attributes { clear: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() }.apply(mounted)
    }
}

fn place(path: &str) -> Result<OwnedFd, Errno> {
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), links)
}

/// Leaves no mount behind in this process's namespace.
impl Drop for Share {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

/// On the host and not in the guest: there every directory of the share is a filesystem of its own, which Linux 6.12 does not
/// let have an id map. The filesystem of the volume must be able to (ext4, xfs, btrfs; tmpfs since 6.3).
///
/// # Errors
/// When the filesystem has no id maps, or the map is none.
pub(crate) fn map_ids(path: &Path, tree: &OwnedFd, map: &IdMap) -> Result<(), ShareError> {
    let failed = |source| ShareError::IdMap { path: path.to_owned(), source };
    let mapping = |m: &IdMapping| Mapping { inside: m.container, outside: m.host, count: m.size };
    let mappings = |list: &[IdMapping]| list.iter().map(mapping).collect::<Vec<_>>();
    let namespace = with_maps(&mappings(&map.uids), &mappings(&map.gids)).map_err(failed)?;
    mount::map_ids(tree, &namespace, false).map_err(|errno| failed(errno.into()))
}
