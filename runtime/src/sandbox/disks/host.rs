//! What of the host a container's disks are.
//!
//!   node of the spec ─number─▶ a node of our own ─┐
//!   mount of the spec ─path, as the caller sees it─┴─▶ HostDisk { identity, … } ─open, later─▶ descriptor, size
//!
//! What is written is opened exclusively. For a block device that is O_EXCL: the kernel answers EBUSY when it, or a part of it, is
//! mounted, is swap, or belongs to another device; so a host's own disk that is named by mistake is refused. A device that is only
//! read must be free as well when it comes, but others may come to it: a volume may be read by many pods. A file has no such
//! rule, and gets a lock of flock(2), which keeps this program's own sandboxes apart.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use bulkhead_protocol::container::{ContainerSpec, DeviceKind, DeviceNode, DiskFilesystem, SharePath};
use rustix::{
    fs::{
        CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock, fstat, ioctl_blksszget, makedev,
        mknodat, open, openat, openat2,
    },
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use crate::spec::{DiskMount, may_write};

/// The unit of a disk's size.
const SECTOR: u64 = 512;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("open the disk {}", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "open the disk {}: it is in use, as by a mount of the host, a device above it, or another sandbox",
        .path.display()
    )]
    Busy { path: PathBuf },
    #[error("open the disk {}: it is neither a block device nor a regular file", .path.display())]
    Kind { path: PathBuf },
    #[error("open the disk {}: it has no sector of {SECTOR} bytes", .path.display())]
    Empty { path: PathBuf },
}

/// What something of the host is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// By its number.
    Device(u64),
    /// By the device and the inode number.
    File(u64, u64),
}

/// How containers use a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// As a device.
    Raw,
    /// The guest mounts it.
    Filesystem(DiskFilesystem),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("has it as a device"),
            Self::Filesystem(filesystem) => write!(f, "has it mounted as {}", filesystem.name()),
        }
    }
}

/// A disk that a container wants. It is not open yet: the sandbox may have it.
#[derive(Debug)]
pub(crate) struct HostDisk {
    pub(super) identity: Identity,
    pub(super) usage: Use,
    pub(super) writable: bool,
    /// Of a filesystem: by which the spec names it.
    pub(super) name: Option<SharePath>,
    /// For people.
    pub(super) path: PathBuf,
    /// A descriptor that cannot be read from (O_PATH).
    place: OwnedFd,
}

/// One that is open.
#[derive(Debug)]
pub(super) struct OpenedDisk {
    pub(super) file: OwnedFd,
    /// Of 512 bytes each, at least 1.
    pub(super) sectors: u64,
    /// Bytes that the disk reads and writes at once.
    pub(super) block_size: u32,
}

/// Looks for the disks of a container, in the mount namespace of this thread. Opens none of them.
///
/// # Errors
/// When one is not there.
pub(crate) fn look_for(mounts: &[DiskMount], spec: &ContainerSpec) -> Result<Vec<HostDisk>, OpenError> {
    let mut numbers = BTreeSet::new();
    let nodes = spec.devices.iter().filter(|node| numbers_of(node).is_some_and(|own| numbers.insert(own)));
    let devices = nodes.map(|node| {
        let writable = may_write(&spec.resources.devices, node);
        let path = PathBuf::from(format!("{} ({}:{})", node.path, node.major, node.minor));
        let place = by_number(node).map_err(|errno| opening(&path, errno))?;
        HostDisk::new(place, path, Use::Raw, writable, None)
    });
    let mounts = mounts.iter().map(|mount| {
        let DiskMount { source, name, filesystem, read_only } = mount;
        let place = by_path(source).map_err(|errno| opening(source, errno))?;
        let usage = Use::Filesystem(*filesystem);
        HostDisk::new(place, source.clone(), usage, !read_only, Some(name.clone()))
    });
    devices.chain(mounts).collect()
}

/// The host's numbers of a node that is a disk's.
pub(super) fn numbers_of(node: &DeviceNode) -> Option<(u32, u32)> {
    (node.kind == DeviceKind::Block).then_some((node.major, node.minor))
}

/// The node of a device, whatever the host has in its /dev: in a tmpfs that is mounted nowhere.
fn by_number(node: &DeviceNode) -> Result<OwnedFd, Errno> {
    const NAME: &str = "disk";
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let (mode, number) = (Mode::from_raw_mode(0o600), makedev(node.major, node.minor));
    mknodat(&mount, NAME, FileType::BlockDevice, mode, number)?;
    openat(&mount, NAME, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The path was resolved when the spec was read: what was put in its place since is not followed.
fn by_path(path: &Path) -> Result<OwnedFd, Errno> {
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), links)
}

fn opening(path: &Path, errno: Errno) -> OpenError {
    let path = path.to_owned();
    match errno {
        Errno::BUSY | Errno::WOULDBLOCK => OpenError::Busy { path },
        errno => OpenError::Open { path, source: errno.into() },
    }
}

impl HostDisk {
    fn new(
        place: OwnedFd,
        path: PathBuf,
        usage: Use,
        writable: bool,
        name: Option<SharePath>,
    ) -> Result<Self, OpenError> {
        let found = fstat(&place).map_err(|errno| opening(&path, errno))?;
        let identity = match FileType::from_raw_mode(found.st_mode) {
            FileType::BlockDevice => Identity::Device(found.st_rdev),
            FileType::RegularFile => Identity::File(found.st_dev, found.st_ino),
            _ => return Err(OpenError::Kind { path }),
        };
        Ok(Self { identity, usage, writable, name, path, place })
    }

    /// Of a device.
    pub(super) fn numbers(&self) -> Option<(u32, u32)> {
        match self.identity {
            Identity::Device(number) => Some((rustix::fs::major(number), rustix::fs::minor(number))),
            Identity::File(..) => None,
        }
    }

    /// Opens it; may wait for the device.
    ///
    /// # Errors
    /// When it is in use, or is no disk.
    pub(super) fn open(&self) -> Result<OpenedDisk, OpenError> {
        let path = &self.path;
        let mut file = File::from(self.open_file().map_err(|errno| opening(path, errno))?);
        let failed = |source| OpenError::Open { path: path.clone(), source };
        // Of a file and of a device.
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let block_size = match self.identity {
            Identity::Device(_) => ioctl_blksszget(&file).map_err(|errno| failed(errno.into()))?,
            Identity::File(..) => SECTOR as u32,
        };
        // What is no whole block at the end of a file is no part of the disk.
        match bytes / SECTOR {
            0 => Err(OpenError::Empty { path: path.clone() }),
            sectors => Ok(OpenedDisk { file: file.into(), sectors, block_size }),
        }
    }

    fn open_file(&self) -> Result<OwnedFd, Errno> {
        let itself = format!("/proc/self/fd/{}", self.place.as_raw_fd());
        let access = if self.writable { OFlags::RDWR } else { OFlags::RDONLY };
        let open = |flags| open(&itself, access | flags | OFlags::CLOEXEC, Mode::empty());
        match self.identity {
            Identity::Device(_) => {
                let alone = open(OFlags::EXCL)?;
                if self.writable {
                    return Ok(alone);
                }
                // It is free; others may read it too.
                drop(alone);
                open(OFlags::empty())
            }
            Identity::File(..) => {
                let file = open(OFlags::empty())?;
                let kind = if self.writable {
                    FlockOperation::NonBlockingLockExclusive
                } else {
                    FlockOperation::NonBlockingLockShared
                };
                flock(&file, kind)?;
                Ok(file)
            }
        }
    }
}
