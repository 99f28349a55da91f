//! The "newc" cpio format, as the kernel's initramfs unpacker reads it (Documentation/driver-api/early-userspace/
//! buffer-format.rst): per entry a 110-byte header of hexadecimal text, the name, the content, each padded to 4.
//!
//! `Archive` is a sorted map from path to entry, so the order of insertion leaves no trace in the bytes. Parents are
//! added before what they contain; a path that is taken is refused.

use std::collections::BTreeMap;
use std::io::{self, Write};

#[cfg(test)]
mod tests;

/// The unpacker takes no name longer than this (PATH_MAX, the final NUL included).
const MAX_NAME: usize = 4096;
/// Largest content of one file: far above any agent, far below the 4 GiB that the size field can say.
pub(crate) const MAX_CONTENT: usize = 256 << 20;

const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("add {path}: not an absolute path of plain names, or longer than {MAX_NAME} bytes")]
    BadPath { path: String },
    #[error("add {path}: the archive has it already")]
    Taken { path: String },
    #[error("add {path}: {parent} is not a directory")]
    ParentNotDirectory { path: String, parent: String },
    #[error("add {path}: {size} bytes, and the limit is {MAX_CONTENT}")]
    TooLarge { path: String, size: usize },
    #[error("write {path}")]
    Write { path: String, source: io::Error },
}

/// One file system object; permissions without the type bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory { permissions: u32 },
    File { permissions: u32, content: Vec<u8> },
    CharDevice { permissions: u32, major: u32, minor: u32 },
}

/// The objects of an archive by absolute path without the leading slash.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds an object at an absolute path, and its missing parents as directories of mode 0755.
    pub(crate) fn add(&mut self, path: &str, entry: Entry) -> Result<(), ArchiveError> {
        let name = plain_name(path)?;
        if let Entry::File { content, .. } = &entry
            && content.len() > MAX_CONTENT
        {
            return Err(ArchiveError::TooLarge { path: path.to_owned(), size: content.len() });
        }
        if self.entries.contains_key(name) {
            return Err(ArchiveError::Taken { path: path.to_owned() });
        }
        for (slash, _) in name.match_indices('/') {
            let parent = &name[..slash];
            match self.entries.get(parent) {
                Some(Entry::Directory { .. }) => {}
                Some(Entry::File { .. } | Entry::CharDevice { .. }) => {
                    return Err(ArchiveError::ParentNotDirectory {
                        path: path.to_owned(),
                        parent: format!("/{parent}"),
                    });
                }
                None => {
                    self.entries.insert(parent.to_owned(), Entry::Directory { permissions: 0o755 });
                }
            }
        }
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Writes all entries in path order (a directory sorts before what it contains) and the trailer.
    pub(crate) fn write_to(&self, out: &mut impl Write) -> Result<(), ArchiveError> {
        let mut inode = 0;
        for (name, entry) in &self.entries {
            inode += 1;
            write_entry(out, inode, name, entry)
                .map_err(|source| ArchiveError::Write { path: format!("/{name}"), source })?;
        }
        write_record(out, &Header { inode: 0, links: 1, ..Header::default() }, "TRAILER!!!", &[])
            .map_err(|source| ArchiveError::Write { path: "the trailer".to_owned(), source })
    }
}

/// The name an absolute path has inside the archive.
fn plain_name(path: &str) -> Result<&str, ArchiveError> {
    path.strip_prefix('/')
        .filter(|name| name.len() < MAX_NAME && !name.contains('\0'))
        .filter(|name| name.split('/').all(|part| !matches!(part, "" | "." | "..")))
        .ok_or_else(|| ArchiveError::BadPath { path: path.to_owned() })
}

/// The header fields that vary; owner, time and the device the file came from are always 0.
#[derive(Default)]
struct Header {
    inode: u32,
    mode: u32,
    links: u32,
    device: (u32, u32),
}

fn write_entry(out: &mut impl Write, inode: u32, name: &str, entry: &Entry) -> io::Result<()> {
    let (mode, links, device, content): (_, _, _, &[u8]) = match entry {
        Entry::Directory { permissions } => (S_IFDIR | permissions, 2, (0, 0), &[]),
        Entry::File { permissions, content } => (S_IFREG | permissions, 1, (0, 0), content),
        Entry::CharDevice { permissions, major, minor } => (S_IFCHR | permissions, 1, (*major, *minor), &[]),
    };
    write_record(out, &Header { inode, mode, links, device }, name, content)
}

fn write_record(out: &mut impl Write, header: &Header, name: &str, content: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let size = u32::try_from(content.len()).map_err(too_long)?;
    let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
    let fields = [
        header.inode,
        header.mode,
        0, // uid
        0, // gid
        header.links,
        0, // mtime
        size,
        0, // device the file lay on, major and minor
        0,
        header.device.0,
        header.device.1,
        name_size,
        0, // checksum: always 0 in this variant
    ];
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(b"\0")?;
    pad(out, HEADER_SIZE + name.len() + 1)?;
    out.write_all(content)?;
    pad(out, content.len())
}

/// Magic and 13 fields of 8 digits.
const HEADER_SIZE: usize = 6 + 13 * 8;

/// Fills up to the next multiple of 4 after `written` bytes.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}
