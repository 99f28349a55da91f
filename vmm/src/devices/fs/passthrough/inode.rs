//! A file of the host that the guest knows: an O_PATH descriptor, and what tells this file from others.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{AtFlags, Statx, StatxFlags, statx};
use virtiofsd::fuse::Attr;

use super::{
    super::{
        budget::Slot,
        locks::FileLocks,
        watch::{Group, Place},
    },
    opened::Kept,
};

/// Names a file for as long as somebody holds a descriptor of it. The mount counts: a file system that is mounted twice is
/// two in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    device: u64,
    number: u64,
    mount: u64,
}

/// What a change of a file's contents changes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Version {
    /// Unless the last change is so young that another one might have the same time: kernels count time by ticks of up to 10 ms.
    fn settled(self) -> Option<Self> {
        const TICKS: Duration = Duration::from_millis(20);
        let (seconds, nanoseconds) = self.changed;
        let changed = UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))?;
        SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICKS).then_some(self)
    }
}

impl Id {
    pub(super) fn place(&self) -> Place {
        Place { directory: (self.device, self.number), mount: self.mount }
    }
}

/// What one statx(2) says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status(Statx);

impl Status {
    /// Of the file `name` in a directory, which may be a link and is not followed; of `file` itself when the name is empty.
    ///
    /// # Errors
    /// Those of statx(2).
    pub(super) fn of(file: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Self(statx(file, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?))
    }

    pub(super) fn id(&self) -> Id {
        let Self(status) = self;
        Id {
            device: libc::makedev(status.stx_dev_major, status.stx_dev_minor),
            number: status.stx_ino,
            mount: status.stx_mnt_id,
        }
    }

    /// S_IFMT and permissions.
    pub(super) fn mode(&self) -> u32 {
        self.0.stx_mode.into()
    }

    pub(super) fn is_directory(&self) -> bool {
        self.mode() & libc::S_IFMT == libc::S_IFDIR
    }

    fn version(&self) -> Version {
        let Self(status) = self;
        Version {
            size: status.stx_size,
            modified: (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
            changed: (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec),
        }
    }

    pub(super) fn links(&self) -> u32 {
        self.0.stx_nlink
    }

    /// `flags` are the FUSE_ATTR_ ones.
    pub(super) fn attributes(&self, flags: u32) -> Attr {
        let Self(status) = self;
        Attr {
            ino: status.stx_ino,
            size: status.stx_size,
            blocks: status.stx_blocks,
            atime: status.stx_atime.tv_sec.cast_unsigned(),
            mtime: status.stx_mtime.tv_sec.cast_unsigned(),
            ctime: status.stx_ctime.tv_sec.cast_unsigned(),
            atimensec: status.stx_atime.tv_nsec,
            mtimensec: status.stx_mtime.tv_nsec,
            ctimensec: status.stx_ctime.tv_nsec,
            mode: self.mode(),
            nlink: status.stx_nlink,
            uid: status.stx_uid.into(),
            gid: status.stx_gid.into(),
            // The low half, which holds all devices that Linux has.
            rdev: libc::makedev(status.stx_rdev_major, status.stx_rdev_minor) as u32,
            blksize: status.stx_blksize,
            flags,
        }
    }
}

/// What a file is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Export {
    /// The directories of the share itself.
    Share,
    /// A rootfs, which one container has: it is mounted in a directory of the share's.
    Rootfs,
    /// A volume, which others may use as well: it is mounted in the root of the share.
    Volume,
}

/// How changes that others make of a file are heard of.
#[derive(Debug)]
pub(super) enum Watched {
    No,
    /// By the mark of the directory that it is in.
    Above,
    /// By its own mark, which ends with it.
    Marked(Arc<Group>),
    /// Not at all, but that the guest has it is known.
    Met(Arc<Group>),
}

#[derive(Debug)]
pub(super) struct Inode {
    file: OwnedFd,
    id: Id,
    /// S_IFMT; it never changes.
    kind: u32,
    export: Export,
    watched: Watched,
    /// Made by the first lock.
    locks: OnceLock<Arc<FileLocks>>,
    kept: Kept,
    /// What the contents were that the guest may have kept.
    version: Mutex<Option<Version>>,
    _slot: Slot,
}

impl Inode {
    /// `file` is an O_PATH descriptor, and `status` what it says.
    pub(super) fn new(
        file: OwnedFd,
        status: &Status,
        (export, watched): (Export, Watched),
        slot: Slot,
    ) -> Self {
        let kind = status.mode() & libc::S_IFMT;
        let (locks, kept, version) = (OnceLock::new(), Kept::default(), Mutex::default());
        Self { file, id: status.id(), kind, export, watched, locks, kept, version, _slot: slot }
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    /// What `child`, found in this directory, is part of.
    pub(super) fn export_of(&self, child: &Status, is_root: bool) -> Export {
        match self.export {
            Export::Share if self.is_on_filesystem_of(child) => Export::Share,
            Export::Share if is_root => Export::Volume,
            Export::Share | Export::Rootfs => Export::Rootfs,
            Export::Volume => Export::Volume,
        }
    }

    /// Whether the guest may keep and open it without asking.
    pub(super) fn is_exclusive(&self) -> bool {
        self.may_be_opened() && self.is_watched()
    }

    /// Whether it is heard of when somebody else changes it, or what it has in it.
    pub(super) fn is_watched(&self) -> bool {
        matches!(self.watched, Watched::Above | Watched::Marked(_))
    }

    /// The guest opens the file, which looks like this now. Whether the contents are those of the last time.
    pub(super) fn opens(&self, status: &Status) -> bool {
        let version = status.version();
        // One value; a thread that panicked has set it or not.
        let mut known = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, version.settled());
        before == Some(version)
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    /// Whether this process may open it for more than its name: opening a fifo waits, and opening a device does something.
    pub(super) fn may_be_opened(&self) -> bool {
        matches!(self.kind, libc::S_IFREG | libc::S_IFDIR)
    }

    /// Whether `child`, found in this directory, is where another file system begins.
    pub(super) fn is_border_to(&self, child: &Status) -> bool {
        child.is_directory() && !self.is_on_filesystem_of(child)
    }

    fn is_on_filesystem_of(&self, child: &Status) -> bool {
        let id = child.id();
        (id.device, id.mount) == (self.id.device, self.id.mount)
    }

    /// The locks on this file, if there were any.
    pub(super) fn locked(&self) -> Option<&Arc<FileLocks>> {
        self.locks.get()
    }

    pub(super) fn locks(&self) -> &Arc<FileLocks> {
        self.locks.get_or_init(Arc::default)
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        if let Watched::Marked(group) | Watched::Met(group) = &self.watched {
            group.leave(self.id.place(), &self.file);
        }
    }
}

impl AsFd for Inode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
