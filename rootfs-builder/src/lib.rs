//! Packs the agent into a reproducible initramfs.
//!
//!   agent (static ELF) ─▶ `elf::check_static` ─▶ `Initramfs` (what is in it) ─▶ `archive` (newc bytes) ─▶ file
//!
//! The same input gives the same bytes on any machine: entries are sorted, times are 0, owners are root, inode
//! numbers count up. The file appears under its final name only when it is complete.

mod archive;
mod elf;
mod initramfs;

pub use archive::ArchiveError;
pub use elf::ElfError;
pub use initramfs::{BuildError, Extra, ExtraError, Initramfs};
