//! The volumes as the agent has them mounted: each is in one superblock, which all containers have mounts of.
//!
//!   container::Volumes ─▶ a copy of each mount ─▶ `MountedVolume`: its device, and a place that inodes are opened by
//!
//! A watch says of which superblock and inode it is, whatever the mount namespace that it was made in. So nothing is looked up in
//! the mount namespace of a container, which may have any filesystem there.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use bulkhead_protocol::{
    container::SharePath,
    watch::{WatchPath, Watched},
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags},
    mount::OpenTreeFlags,
};

use super::{
    fdinfo::{Device, Handle, Line},
    handle,
};

#[derive(Debug, Default)]
pub(super) struct Volumes(Vec<MountedVolume>);

#[derive(Debug)]
struct MountedVolume {
    point: PathBuf,
    path: SharePath,
    device: Device,
    root: Handle,
    /// Of a copy of the mount. Open for reading when it is a directory, which inodes are opened by; else O_PATH.
    place: OwnedFd,
    directory: bool,
}

/// What is kept of a watched inode: its path is that of its directory entry, which this keeps in memory.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: Arc<OwnedFd>,
    /// As `below_mount` says; another one means that the guest has moved it.
    pub(super) below: Vec<u8>,
    pub(super) watched: Watched,
}

impl Volumes {
    /// Those that are mounted now: their names in the share, and where, which no two have been. What is there as before is not
    /// opened again, and what cannot be opened is left out.
    pub(super) fn become_those_of(&mut self, mounted: &[(SharePath, PathBuf)]) {
        let mut known = std::mem::take(&mut self.0);
        let find = |(path, point): &(SharePath, PathBuf)| match known.iter().position(|v| v.point == *point) {
            Some(at) => Some(known.swap_remove(at)),
            None => MountedVolume::of(path, point).ok(),
        };
        self.0 = mounted.iter().filter_map(find).collect();
    }

    /// Whether a watch is one of a volume, as far as it can be told without a look at the inode.
    pub(super) fn has(&self, line: &Line) -> bool {
        self.0.iter().any(|volume| volume.may_have(line))
    }

    /// The watched inode, and where in the share it is. `None` for one that is in no volume, or has no name any more.
    pub(super) fn open(&self, line: &Line) -> Option<Found> {
        self.0.iter().filter(|volume| volume.may_have(line)).find_map(|volume| volume.open(line).ok())
    }
}

impl MountedVolume {
    fn of(path: &SharePath, point: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::open(point, flags, Mode::empty())?;
        let root = handle::of(&place)?;
        let found = rustix::fs::fstat(&place)?;
        let device =
            Device { major: rustix::fs::major(found.st_dev), minor: rustix::fs::minor(found.st_dev) };
        let directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mut place = rustix::mount::open_tree(&place, "", flags)?;
        if directory {
            // Who watches the volume itself for IN_OPEN hears of it, once.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            place = rustix::fs::openat(&place, ".", flags, Mode::empty())?;
        }
        Ok(Self { point: point.to_owned(), path: path.clone(), device, root, place, directory })
    }

    fn may_have(&self, line: &Line) -> bool {
        self.device == line.device && (self.directory || self.root.node() == line.handle.node())
    }

    fn open(&self, line: &Line) -> io::Result<Found> {
        let root = self.root.node() == line.handle.node();
        let file = if root { self.place.try_clone()? } else { handle::open(&self.place, line.handle)? };
        let below = below_mount(&file)?;
        let volume = self.path.as_str().as_bytes();
        let path = if root { volume.to_vec() } else { [volume, b"/", &below].concat() };
        if !root {
            self.check(&below, line.handle)?;
        }
        let path = WatchPath::try_from(path).map_err(io::Error::other)?;
        // As the kernel has it: the host compares it with what it finds.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let inode = rustix::fs::statx(&file, "", flags, StatxFlags::INO)?.stx_ino;
        Ok(Found { file: Arc::new(file), below, watched: Watched { path, inode, events: line.events } })
    }

    /// A path may be that of an inode outside of the mount, of a removed one, or an earlier one.
    fn check(&self, below: &[u8], handle: Handle) -> io::Result<()> {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let there = rustix::fs::openat2(&self.place, below, flags, Mode::empty(), resolve)?;
        if handle::of(there)?.node() == handle.node() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// The path of what is in a mount that is nowhere, from the root of the mount.
pub(super) fn below_mount(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let path = rustix::fs::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
    Ok(path.as_bytes().strip_prefix(b"/").unwrap_or_default().to_vec())
}
