//! What the guest finds in memory when its first instruction runs: the PVH boot protocol.
//!
//!   0x6000 start_info · 0x6040 module list · 0x7000 memory map · 0x20000 command line · 0x9fc00 MP table
//!   1 MiB … kernel segments (where the ELF says) … initramfs (page-aligned at the top)
//!
//! All addresses below 1 MiB are ours; the kernel's own set-up keeps off them because the memory map reserves the
//! last KiB and Linux reads the rest before it reuses it. Nothing here knows KVM.

pub mod cmdline;
mod image;
mod mptable;
mod pvh;

use std::{fs::File, io};

use vm_memory::{Bytes, GuestAddress};

pub use self::image::ImageError;
use self::{cmdline::CommandLine, image::Initramfs};
use crate::memory::Memory;

/// Where the first vCPU starts, and what it finds in rbx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub instruction: u64,
    pub start_info: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("guest memory of {have} MiB is too small: kernel and initramfs need at least {need} MiB")]
    TooSmall { have: u64, need: u64 },
    #[error("write the {what} to guest memory at {address:#x}")]
    Write { what: &'static str, address: u64, source: vm_memory::GuestMemoryError },
    #[error("read the {what}")]
    Read { what: &'static str, source: io::Error },
    #[error("the {what} has {len} bytes; {max} are allowed")]
    NoRoom { what: &'static str, len: usize, max: usize },
}

/// Loads kernel and initramfs, and writes all tables. `vcpus` is the number created.
///
/// # Errors
/// A file is none that boots, guest memory is too small for it, or a table does not fit its place.
pub fn load(
    memory: &Memory,
    kernel: &mut File,
    initramfs: &mut File,
    command_line: &CommandLine,
    vcpus: u8,
) -> Result<Entry, BootError> {
    let kernel = image::load_kernel(memory, kernel)?;
    let initramfs = image::load_initramfs(memory, initramfs, kernel)?;
    write_command_line(memory, command_line)?;
    let table = mptable::table(vcpus);
    put(memory, "MP table", mptable::ADDRESS, &table, mptable::MAX)?;
    pvh::write(memory, initramfs)?;
    Ok(Entry { instruction: kernel.entry, start_info: pvh::START_INFO })
}

fn write_command_line(memory: &Memory, command_line: &CommandLine) -> Result<(), BootError> {
    let mut bytes = command_line.to_string().into_bytes();
    bytes.push(0);
    put(memory, "kernel command line", cmdline::ADDRESS, &bytes, cmdline::MAX)
}

/// Writes bytes to their fixed place, of `max` bytes.
fn put(memory: &Memory, what: &'static str, address: u64, bytes: &[u8], max: usize) -> Result<(), BootError> {
    if bytes.len() > max {
        return Err(BootError::NoRoom { what, len: bytes.len(), max });
    }
    let write = |source| BootError::Write { what, address, source };
    memory.write_slice(bytes, GuestAddress(address)).map_err(write)
}

#[cfg(test)]
mod tests;
