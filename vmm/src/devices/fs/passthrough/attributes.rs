//! Attributes: what stat(2), readlink(2) and statfs(2) tell, and what chmod, chown, truncate and utimensat set.

use std::{io, mem::MaybeUninit, os::fd::AsFd as _, os::fd::AsRawFd as _, time::Duration};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmodat, chownat,
        ftruncate, readlinkat, utimensat,
    },
    path::DecInt,
};
use virtiofsd::{
    filesystem::SetattrValid,
    fuse::{Attr, SetattrIn},
    soft_idmap::Id as _,
};

use super::{
    Passthrough,
    contents::UNASKED,
    inode::{Inode, Status},
    policy,
};

impl Passthrough {
    pub(in super::super) fn getattr(&self, inode: u64) -> io::Result<(Attr, Duration)> {
        attributes(&*self.table.inode(inode)?)
    }

    pub(in super::super) fn is_directory(&self, inode: u64) -> io::Result<bool> {
        Ok(self.table.inode(inode)?.is_directory())
    }

    /// Sets what `valid` names, in the order of mode, owner, size, times.
    pub(in super::super) fn setattr(
        &self,
        number: u64,
        new: &SetattrIn,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        let inode = self.table.inode(number)?;
        let asked = handle.filter(|handle| *handle != UNASKED);
        let handle = asked.map(|handle| self.table.handle(number, handle)).transpose()?;
        let path = DecInt::from_fd(&*inode);
        if valid.contains(SetattrValid::MODE) {
            let mode = Mode::from_bits_retain(new.mode & 0o7777);
            chmodat(&self.proc_self_fd, path.clone(), mode, AtFlags::empty())?;
        }
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) {
            let uid = valid.contains(SetattrValid::UID).then(|| new.uid.into_inner());
            let gid = valid.contains(SetattrValid::GID).then(|| new.gid.into_inner());
            let (uid, gid) = (uid.map(id).transpose()?, gid.map(id).transpose()?);
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            chownat(&*inode, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags)?;
        }
        if valid.contains(SetattrValid::SIZE) {
            match &handle {
                Some(handle) => ftruncate(&**handle, new.size)?,
                None => ftruncate(self.reopen(&inode, OFlags::RDWR | OFlags::NONBLOCK)?, new.size)?,
            }
        }
        if valid.intersects(SetattrValid::ATIME | SetattrValid::MTIME) {
            let time =
                |set, now, seconds: u64, nanoseconds: u32| match (valid.contains(set), valid.contains(now)) {
                    (_, true) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
                    (true, false) => Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.into() },
                    (false, false) => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                };
            let times = Timestamps {
                last_access: time(SetattrValid::ATIME, SetattrValid::ATIME_NOW, new.atime, new.atimensec),
                last_modification: time(
                    SetattrValid::MTIME,
                    SetattrValid::MTIME_NOW,
                    new.mtime,
                    new.mtimensec,
                ),
            };
            utimensat(&self.proc_self_fd, path, &times, AtFlags::empty())?;
        }
        attributes(&inode)
    }

    pub(in super::super) fn readlink(&self, inode: u64) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&*self.table.inode(inode)?, c"", Vec::new())?.into_bytes())
    }

    pub(in super::super) fn statfs(&self, inode: u64) -> io::Result<libc::statvfs64> {
        let inode = self.table.inode(inode)?;
        let mut status = MaybeUninit::<libc::statvfs64>::zeroed();
        // SAFETY: the descriptor is open as long as `inode` lives, and the kernel writes nothing but `status`.
        if unsafe { libc::fstatvfs64(inode.as_fd().as_raw_fd(), status.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has succeeded, and zeros are valid for what it left alone.
        Ok(unsafe { status.assume_init() })
    }
}

fn attributes(inode: &Inode) -> io::Result<(Attr, Duration)> {
    let status = Status::of(inode, c"")?;
    Ok((status.attributes(0), policy::attributes(inode, &status)))
}

/// All ones mean "no change" to the kernel.
fn id(id: u32) -> io::Result<u32> {
    if id == u32::MAX { Err(super::errno(libc::EINVAL)) } else { Ok(id) }
}
