//! The two files of a boot: vmlinux (ELF with a PVH note) and the initramfs.
//!
//!   kernel segments ─▶ where the ELF says        initramfs ─▶ page-aligned, ends with guest memory
//!
//! Both come from the operator, not from the guest, but a wrong file must end in a message: sizes are capped by the
//! guest memory that they go to, and `SPARE` is kept free so that a kernel that fits also boots.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
};

use linux_loader::loader::{self, KernelLoader, elf::PvhBootCapability};
use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::memory::Memory;

/// Kernels are linked above the first MiB, which belongs to the tables.
const LOWEST: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// A kernel image starts at a multiple of this. Memory below the image is free for other use.
const KERNEL_ALIGN: u64 = 2 << 20;
/// What the kernel needs beside its image and two copies of the initramfs to reach init at all.
const SPARE: u64 = 12 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("load the kernel image")]
    Kernel { source: loader::Error },
    #[error("the kernel image has no PVH entry point (CONFIG_PVH)")]
    NoPvhEntry,
    #[error("the entry point of the kernel image is below 1 MiB, or behind the end of the image at {end:#x}")]
    Place { end: u64 },
    #[error("the initramfs is empty")]
    EmptyInitramfs,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub(super) entry: u64,
    start: u64,
    /// First byte after the last segment, its zeroed part included.
    pub(super) end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Initramfs {
    pub(super) address: u64,
    pub(super) size: u64,
}

pub(super) fn load_kernel(memory: &Memory, file: &mut File) -> Result<Kernel, BootError> {
    let size = file_size("kernel image", file)?;
    let have = memory.low() as u64;
    if size > have {
        return Err(BootError::TooSmall {
            have: have >> 20,
            need: size.saturating_add(SPARE).div_ceil(1 << 20),
        });
    }
    let loaded = loader::Elf::load(&**memory, None, file, None);
    let loaded = loaded.map_err(|source| ImageError::Kernel { source })?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(ImageError::NoPvhEntry.into());
    };
    let end = loaded.kernel_end;
    if entry.0 < LOWEST || entry.0 >= end {
        return Err(ImageError::Place { end }.into());
    }
    Ok(Kernel { entry: entry.0, start: entry.0 / KERNEL_ALIGN * KERNEL_ALIGN, end })
}

pub(super) fn load_initramfs(
    memory: &Memory,
    file: &mut File,
    kernel: Kernel,
) -> Result<Initramfs, BootError> {
    let what = "initramfs";
    let size = file_size(what, file)?;
    if size == 0 {
        return Err(ImageError::EmptyInitramfs.into());
    }
    let have = memory.low() as u64;
    // It must fit above the kernel, and the guest must have room to unpack it.
    let above = kernel.end.saturating_add(size).saturating_add(PAGE);
    let need =
        (kernel.end - kernel.start).saturating_add(size.saturating_mul(2)).saturating_add(SPARE).max(above);
    if need > have {
        return Err(BootError::TooSmall { have: have >> 20, need: need.div_ceil(1 << 20) });
    }
    // What is needed is more than the size.
    let address = (have - size) / PAGE * PAGE;
    memory
        .read_exact_volatile_from(GuestAddress(address), file, size as usize)
        .map_err(|source| BootError::Write { what, address, source })?;
    Ok(Initramfs { address, size })
}

/// The file's size; its position is at the start afterwards.
fn file_size(what: &'static str, file: &mut File) -> Result<u64, BootError> {
    let read = |source| BootError::Read { what, source };
    let size = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.rewind().map_err(read)?;
    Ok(size)
}
