//! Lines of /proc/PID/mountinfo, proc_pid_mountinfo(5): the mounts of virtio-fs in a mount namespace.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use super::fdinfo::Device;

const KIND: &[u8] = b"virtiofs";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) device: Device,
    /// In the filesystem, as the kernel writes it.
    pub(super) root: Vec<u8>,
    /// As seen from the root of who reads the file.
    pub(super) path: PathBuf,
}

impl Mounted {
    /// `None` for a mount of another filesystem.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let (device, root, path) = (words.nth(2)?, words.next()?, words.next()?);
        let kind = words.skip_while(|word| *word != b"-").nth(1)?;
        if kind != KIND {
            return None;
        }
        let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
        let device = Device { major: major.parse().ok()?, minor: minor.parse().ok()? };
        Some(Self { device, root: root.to_owned(), path: OsString::from_vec(unescaped(path)).into() })
    }
}

/// The kernel writes blanks, tabs, newlines and backslashes as `\ooo`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match octal {
            Some(digits) if first == b'\\' => {
                plain.push(digits.iter().fold(0, |byte: u8, digit| (byte << 3) | (digit - b'0')));
                rest = &behind[3..];
            }
            _ => {
                plain.push(first);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests;
