//! Where volumes are mounted: in the mount namespace of a process that watches something.
//!
//!   mountinfo of the namespace ─▶ mounts of virtio-fs ─▶ those whose root is a volume, by its node ─▶ `MountedVolume`
//!
//! Each volume is a superblock of its own, which some namespaces have a mount of and others have not, so it is there that an inode is
//! found. What is kept is a copy of the mount that belongs to no namespace: the container can unmount its own.

use std::{
    collections::BTreeMap,
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
};

use bulkhead_protocol::{
    container::SharePath,
    watch::{WatchPath, Watched},
};
use bulkhead_sys::namespace::visit_mounts_of;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags},
    mount::OpenTreeFlags,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    fdinfo::{Device, Handle, Line},
    handle,
    mountinfo::Mounted,
};

/// Bytes of mountinfo that are read, and mounts of virtio-fs that are looked at, in one namespace.
const MOUNTINFO: u64 = 4 << 20;
const MOUNTS: usize = 1024;

/// The volumes by the file server's number of their root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Volumes(BTreeMap<[u8; 8], SharePath>);

impl Volumes {
    /// Those of `paths` that are there now, and whether these are all.
    pub(super) fn find(share: &OwnedFd, paths: &[SharePath]) -> (Self, bool) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let node = |path: &SharePath| {
            let place = rustix::fs::openat2(share, path.as_str(), flags, Mode::empty(), resolve).ok()?;
            Some((handle::of(&place).ok()?.node(), path.clone()))
        };
        let found: BTreeMap<_, _> = paths.iter().filter_map(node).collect();
        let all = found.len() == paths.len();
        (Self(found), all)
    }
}

#[derive(Debug)]
struct MountedVolume {
    mounted: Mounted,
    root: Handle,
    path: SharePath,
    /// Of a copy of the mount. Open for reading when it is a directory, which inodes are opened by; else O_PATH.
    place: OwnedFd,
    directory: bool,
}

/// The volumes of one mount namespace.
#[derive(Debug)]
pub(super) struct Space {
    mountinfo: u64,
    mounts: Vec<MountedVolume>,
}

/// What is kept of a watched inode: its path is that of its directory entry, which this keeps in memory.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: Arc<OwnedFd>,
    /// As `below_mount` says; another one means that the guest has moved it.
    pub(super) below: Vec<u8>,
    pub(super) watched: Watched,
}

impl Space {
    /// The volumes of the process's mount namespace, as `known` when the mounts are those of then.
    ///
    /// # Errors
    /// When the process is gone, or its namespace cannot be entered.
    pub(super) fn of(pid: u32, volumes: &Volumes, known: Option<Self>) -> io::Result<Self> {
        let text = read(File::open(format!("/proc/{pid}/mountinfo"))?)?;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let mountinfo = hasher.finish();
        let known = match known {
            Some(known) if known.mountinfo == mountinfo => return Ok(known),
            known => known.map_or_else(Vec::new, |known| known.mounts),
        };
        let process = pidfd_open(number(pid)?, PidfdFlags::empty())?;
        // Of the agent's procfs: that of the container may be anything.
        let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mounts = visit_mounts_of(process, || MountedVolume::all(&proc, volumes, known))??;
        Ok(Self { mountinfo, mounts })
    }

    /// Whether a watch is one of a volume, as far as it can be told without a look at the inode.
    pub(super) fn has(&self, line: &Line) -> bool {
        self.mounts.iter().any(|mount| mount.may_have(line))
    }

    /// The watched inode, and where in the share it is. `None` for one that is in no volume, or has no name any more.
    pub(super) fn open(&self, line: &Line) -> Option<Found> {
        self.mounts.iter().filter(|mount| mount.may_have(line)).find_map(|mount| mount.open(line).ok())
    }
}

impl MountedVolume {
    /// Runs inside the mount namespace. What is there as before is not opened again.
    fn all(proc: &OwnedFd, volumes: &Volumes, mut known: Vec<Self>) -> io::Result<Vec<Self>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let own = rustix::fs::openat(proc, "thread-self/mountinfo", flags, Mode::empty())?;
        let text = read(File::from(own))?;
        let mounted = text.split(|byte| *byte == b'\n').filter_map(Mounted::parse).take(MOUNTS);
        let find = |mounted: Mounted| match known.iter().position(|known| known.mounted == mounted) {
            Some(at) => Some(known.swap_remove(at)),
            None => Self::of(mounted, volumes).ok().flatten(),
        };
        Ok(mounted.filter_map(find).collect())
    }

    fn of(mounted: Mounted, volumes: &Volumes) -> io::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::open(&mounted.path, flags, Mode::empty())?;
        // Where one mount lies on another, the lower one cannot be reached.
        if device(&place)? != mounted.device {
            return Ok(None);
        }
        let root = handle::of(&place)?;
        let Some(path) = volumes.0.get(&root.node()) else { return Ok(None) };
        let directory = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Directory;
        let place = copy(&place)?;
        let place = if directory {
            // Who watches the volume itself for IN_OPEN hears of it, once.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(&place, ".", flags, Mode::empty())?
        } else {
            place
        };
        Ok(Some(Self { root, path: path.clone(), place, directory, mounted }))
    }

    fn may_have(&self, line: &Line) -> bool {
        self.mounted.device == line.device && (self.directory || self.root.node() == line.handle.node())
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

/// A mount of the same filesystem that is nowhere. One with mounts below that its owner must not look under is copied with them.
fn copy(place: &OwnedFd) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copied = rustix::mount::open_tree(place.as_fd(), "", flags);
    Ok(copied.or_else(|_| rustix::mount::open_tree(place, "", flags | OpenTreeFlags::AT_RECURSIVE))?)
}

fn number(pid: u32) -> io::Result<Pid> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn device(place: &OwnedFd) -> io::Result<Device> {
    let number = rustix::fs::fstat(place)?.st_dev;
    Ok(Device { major: rustix::fs::major(number), minor: rustix::fs::minor(number) })
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MOUNTINFO).read_to_end(&mut text)?;
    Ok(text)
}

/// The name of a process's mount namespace: `mnt:[4026531841]`.
///
/// # Errors
/// When the process is gone.
pub(super) fn name_of_space(pid: u32) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlink(format!("/proc/{pid}/ns/mnt"), Vec::new())?.into_bytes())
}
