//! Which filesystems tell of every change: those that no other machine and no program changes behind the kernel's back.

use std::os::fd::AsFd;

use rustix::fs::fstatfs;

/// linux/magic.h, and those of filesystems that are built apart.
const LOCAL: [u32; 10] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0xe0f5_e1e2, // EROFS
    0x7371_7368, // SquashFS
];

/// Not so for NFS, CIFS, Ceph, 9p, FUSE, and what is not known.
pub(super) fn is_local(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|status| u32::try_from(status.f_type).is_ok_and(|kind| LOCAL.contains(&kind)))
}
