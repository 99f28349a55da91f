//! The PVH start info: how a kernel entered without a boot loader finds its memory, modules and command line.
//!
//!   rbx ─▶ start_info ─┬▶ memory map: RAM · reserved · RAM (· RAM above 4 GiB)
//!                      ├▶ module list ─▶ initramfs
//!                      └▶ command line
//!
//! Layouts from xen/include/public/arch-x86/hvm/start_info.h, version 1; all fields little-endian.

use super::{
    BootError, Initramfs, cmdline,
    mptable::{self, ONE_MIB},
    put,
};
use crate::memory::{Memory, Region};

pub(super) const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x6040;
const MEMORY_MAP: u64 = 0x7000;
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;

const RAM: u32 = 1;
const RESERVED: u32 = 2;

pub(super) fn write(memory: &Memory, initramfs: Initramfs) -> Result<(), BootError> {
    let map = memory_map(memory.boot_regions());
    put(memory, "memory map", MEMORY_MAP, &map.concat(), 0x1000)?;
    put(memory, "module list", MODULES, &module(initramfs), 0x40)?;
    put(memory, "start info", START_INFO, &start_info(map.len() as u32), 0x40)
}

fn start_info(map_entries: u32) -> Vec<u8> {
    let flags = 0_u32;
    let modules = 1_u32;
    let rsdp = 0_u64;
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, flags, modules] {
        bytes.extend(word.to_le_bytes());
    }
    for address in [MODULES, cmdline::ADDRESS, rsdp, MEMORY_MAP] {
        bytes.extend(address.to_le_bytes());
    }
    for word in [map_entries, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

fn module(initramfs: Initramfs) -> Vec<u8> {
    let command_line = 0;
    let reserved = 0;
    [initramfs.address, initramfs.size, command_line, reserved]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// What can be hotplugged is not in it: the guest hears of that from the device.
fn memory_map(regions: &[Region]) -> Vec<Vec<u8>> {
    let tables = [(0, mptable::ADDRESS, RAM), (mptable::ADDRESS, ONE_MIB - mptable::ADDRESS, RESERVED)];
    // The tables are in the first MiB of the first region.
    let ram = regions.iter().map(|region| {
        let start = region.guest.max(ONE_MIB);
        (start, (region.guest + region.size as u64).saturating_sub(start), RAM)
    });
    let entries = tables.into_iter().chain(ram);
    let entry = |(address, size, kind): (u64, u64, u32)| {
        let mut entry = Vec::new();
        entry.extend(address.to_le_bytes());
        entry.extend(size.to_le_bytes());
        entry.extend(kind.to_le_bytes());
        entry.extend(0_u32.to_le_bytes());
        entry
    };
    entries.map(entry).collect()
}
