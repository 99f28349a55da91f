//! The entries of a directory, with the place behind each. The last one says that nothing comes after it.

use std::{ffi::CString, fs::File, io, sync::Arc};

use virtiofsd::{
    filesystem::{DirEntry, DirectoryIterator},
    read_dir::ReadDir,
};

use super::opened::Opened;

/// The place behind the last entry: a guest that knows it does not ask for what is there. ext4 has the same.
const END: u64 = i64::MAX as u64;
/// Bytes of the host's entries at once. With attributes they make a reply of 64 KiB.
const BATCH: usize = 16 << 10;

type Batch = ReadDir<Vec<u8>>;

#[derive(Debug)]
pub(in super::super) struct Entries {
    opened: Arc<Opened>,
    size: usize,
    batch: Opaque,
    /// What comes after the last entry of `batch`, once that was reached.
    next: Option<Opaque>,
    /// Of the entry that is out.
    name: CString,
}

/// The library's type cannot be printed.
struct Opaque(Batch);

impl std::fmt::Debug for Opaque {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadDir").field("bytes", &self.0.remaining()).finish()
    }
}

impl Entries {
    /// Those behind `offset`, which is 0 or the one that came with an entry, for a reply of `size` bytes.
    pub(super) fn read(opened: Arc<Opened>, offset: u64, size: usize) -> io::Result<Self> {
        let mut entries = Self {
            opened,
            size: size.min(BATCH),
            batch: Opaque(Batch::default()),
            next: None,
            name: CString::default(),
        };
        if size > 0 && offset != END {
            entries.batch = entries.behind(offset)?;
        }
        Ok(entries)
    }

    fn behind(&self, offset: u64) -> io::Result<Opaque> {
        let _position = self.opened.position();
        ReadDir::new::<File>(self.opened.file(), offset, vec![0; self.size]).map(Opaque)
    }
}

impl DirectoryIterator for Entries {
    fn next(&mut self) -> Option<DirEntry<'_>> {
        if self.batch.0.remaining() == 0 {
            self.batch = self.next.take()?;
        }
        let DirEntry { ino, mut offset, type_, name } = self.batch.0.next()?;
        self.name = name.to_owned();
        if self.batch.0.remaining() == 0 {
            // An error is told when the guest asks for what comes next.
            self.next = self.behind(offset).ok();
            if self.next.as_ref().is_some_and(|next| next.0.remaining() == 0) {
                offset = END;
            }
        }
        Some(DirEntry { ino, offset, type_, name: &self.name })
    }
}
