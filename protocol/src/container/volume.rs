//! What the host has mounted for the containers of a sandbox: volumes, and places in them.
//!
//! A volume is there once for a sandbox, however many of its containers name it, so that they share one filesystem of the
//! guest: sockets, fifos, locks and mapped pages of its files. The host names it when it comes and never uses the name again.

use serde::{Deserialize, Serialize};

use super::SharePath;
use crate::vmm::Slot;

/// One directory or file of the host, or what stands for it in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// A child of the root of the share: where it is, if the host serves it. Of a disk a name alone.
    pub name: SharePath,
    pub kind: VolumeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum VolumeKind {
    /// Served by the host, at the volume's name in the share.
    Share,
    /// A unix socket of the guest. Whoever connects to it reaches the host's one.
    Socket(SocketFile),
    /// A tmpfs of the guest, made when the first container needs it and gone with the last.
    Memory(Memory),
    /// A filesystem on a disk that the host has plugged, mounted for the first container that needs it and unmounted with the last.
    Disk(Disk),
}

/// A disk with a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub slot: Slot,
    pub filesystem: DiskFilesystem,
    pub read_only: bool,
}

/// Filesystems of the guest's kernel for disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFilesystem {
    Ext4,
    /// Always read-only.
    Erofs,
}

impl DiskFilesystem {
    pub const ALL: [Self; 2] = [Self::Ext4, Self::Erofs];

    /// As in mount(2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "erofs",
        }
    }
}

/// The file of a unix socket, as the host's that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketFile {
    /// Permission bits: who may write to it may connect.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A tmpfs, as the host's that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// 0: half of the guest's memory, the kernel's default.
    pub bytes: u64,
    /// Permission bits of its root.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A directory or file in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub volume: Volume,
    /// Below the root of the volume; `None` is that itself.
    pub path: Option<SharePath>,
    /// `MOUNT_ATTR_*` bits (linux/mount.h) that its mount has until the spec says otherwise.
    pub attributes: u64,
}

/// What is mounted below the source of a recursive bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submount {
    /// Below the destination of the bind.
    pub below: SharePath,
    pub place: Place,
}
