//! What /proc/PID/fdinfo says of an inotify descriptor (fs/notify/fdinfo.c of Linux): a line for each watch.
//!
//!   inotify wd:1 ino:2 sdev:2d mask:3c8 ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:00000000020000…
//!
//! All numbers are hexadecimal. A line of another filesystem than FUSE has another kind of file handle, and is none of ours.

use bulkhead_protocol::watch;

/// FILEID_INO64_GEN of linux/exportfs.h: how FUSE names its inodes.
pub(super) const HANDLE_KIND: i32 = 0x81;
/// A node id and a generation, in words of 32 bits.
pub(super) const HANDLE_BYTES: usize = 12;

/// Of a mounted filesystem: major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl Device {
    /// As the kernel writes `s_dev` (MKDEV of linux/kdev_t.h).
    fn of_kernel(number: u32) -> Self {
        Self { major: number >> 20, minor: number & 0xf_ffff }
    }
}

/// The file handle of an inode of FUSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Handle(pub(super) [u8; HANDLE_BYTES]);

impl Handle {
    /// The file server's number of the inode, which it has in all mounts of the server.
    pub(super) fn node(self) -> [u8; 8] {
        let mut node = [0; 8];
        node.copy_from_slice(&self.0[..8]);
        node
    }

    fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * HANDLE_BYTES || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; HANDLE_BYTES];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// One watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) device: Device,
    pub(super) handle: Handle,
    /// Those asked for that a host can see.
    pub(super) events: u32,
}

impl Line {
    /// `None` for a line of anything else.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != "inotify" {
            return None;
        }
        let (mut device, mut events, mut kind, mut handle) = (None, None, None, None);
        for (name, value) in words.filter_map(|word| word.split_once(':')) {
            let number = || u32::from_str_radix(value, 16).ok();
            match name {
                "sdev" => device = number(),
                "mask" => events = number(),
                "fhandle-type" => kind = number(),
                "f_handle" => handle = Handle::from_hex(value),
                _ => {}
            }
        }
        if kind != u32::try_from(HANDLE_KIND).ok() {
            return None;
        }
        Some(Self { device: Device::of_kernel(device?), handle: handle?, events: events? & watch::EVENTS })
    }
}

#[cfg(test)]
mod tests;
