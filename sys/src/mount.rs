//! Attributes of mounts by mount_setattr(2), on detached mounts before anybody can see them.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use rustix::io::Errno;

/// MOUNT_ATTR__ATIME of linux/mount.h: the modes of access time are a field, not single bits.
const ATIME: u64 = 0x70;

/// What to change of a mount. The default changes nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// MOUNT_ATTR_* bits of linux/mount.h to set.
    pub set: u64,
    /// MOUNT_ATTR_* bits to clear.
    pub clear: u64,
    /// MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE, or 0.
    pub propagation: u64,
    /// Also of all mounts below it.
    pub recursive: bool,
}

impl Attributes {
    /// MOUNT_ATTR_RDONLY, for this mount alone.
    pub fn read_only() -> Self {
        Self { set: libc::MOUNT_ATTR_RDONLY, ..Self::default() }
    }

    /// The same change for all mounts below as well.
    #[must_use]
    pub fn recursive(self) -> Self {
        Self { recursive: true, ..self }
    }

    /// Changes the mount that `mount` is a descriptor of: its root, or for O_PATH any place in it.
    ///
    /// # Errors
    /// Those of mount_setattr(2): EPERM for a flag that a mount of another user namespace has locked, EBUSY for a
    /// read-only attribute while a file is open for writing.
    pub fn apply(mut self, mount: impl AsFd) -> Result<(), Errno> {
        if (self.set | self.clear) & ATIME != 0 {
            // The kernel takes a new mode of access time only when the old one is cleared whole.
            self.clear |= ATIME;
        }
        if self.set | self.clear | self.propagation == 0 {
            return Ok(());
        }
        let attributes = libc::mount_attr {
            attr_set: self.set,
            attr_clr: self.clear,
            propagation: self.propagation,
            userns_fd: 0,
        };
        set_attributes(mount.as_fd(), &attributes, self.recursive)
    }
}

/// Gives a detached mount the id map of a user namespace (`user_namespace::with_maps`): ids of the filesystem that are ids
/// inside the namespace are shown as what they are outside.
///
/// # Errors
/// EINVAL when the filesystem has no id maps, the mount has one already or was ever attached; EPERM without CAP_SYS_ADMIN in
/// the user namespace of the filesystem.
pub fn map_ids(mount: impl AsFd, namespace: impl AsFd, recursive: bool) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_fd().as_raw_fd().cast_unsigned().into(),
    };
    set_attributes(mount.as_fd(), &attributes, recursive)
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &libc::mount_attr,
    recursive: bool,
) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated static string; `attributes` is a mount_attr of the size given and lives through
    // the call, which only reads it. Its descriptor and `mount` are borrowed by the callers, so they are open.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests;
