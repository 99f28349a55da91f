//! The MultiProcessor table (Intel MP specification 1.4): how a kernel without ACPI finds its CPUs and interrupts.
//!
//!   floating pointer ─▶ header · one entry per vCPU · ISA bus · IOAPIC · its 24 pins · LINT0, LINT1
//!
//! It lies in the last KiB of base memory, where Linux looks first. All pins are edge-triggered: an irqfd without
//! resample can lose a level.

use crate::devices::mmio::IOAPIC_PINS;

pub(super) const ONE_MIB: u64 = 1 << 20;
/// The last KiB of the 639 KiB of base memory.
pub(super) const ADDRESS: u64 = 0x9fc00;
pub(super) const MAX: usize = 1024;

const SPECIFICATION_1_4: u8 = 4;
const LAPIC_ADDRESS: u32 = 0xfee0_0000;
const IOAPIC_ADDRESS: u32 = 0xfec0_0000;
/// An integrated APIC.
const APIC_VERSION: u8 = 0x14;
const ISA: u8 = 0;
const FLOATING_POINTER: usize = 16;

const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IOAPIC: u8 = 2;
const INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
const ALL_LAPICS: u8 = 0xff;

/// The whole table, for `vcpus` CPUs whose APIC ids count from 0. At most 37 fit into `MAX`.
pub(super) fn table(vcpus: u8) -> Vec<u8> {
    let (entries, count) = entries(vcpus);
    let mut table = floating_pointer();
    let mut header = header(entries.len(), count);
    header.extend(&entries);
    set_checksum(&mut header, 7);
    table.extend(header);
    table
}

fn floating_pointer() -> Vec<u8> {
    let mut pointer = b"_MP_".to_vec();
    pointer.extend((ADDRESS as u32 + FLOATING_POINTER as u32).to_le_bytes());
    let sixteen_byte_units = 1;
    let checksum = 0;
    pointer.extend([sixteen_byte_units, SPECIFICATION_1_4, checksum]);
    pointer.resize(FLOATING_POINTER, 0);
    set_checksum(&mut pointer, 10);
    pointer
}

fn header(entry_bytes: usize, count: u16) -> Vec<u8> {
    const LEN: usize = 44;
    let checksum = 0;
    let oem_table = 0_u32;
    let oem_table_size = 0_u16;
    let mut header = b"PCMP".to_vec();
    header.extend(((LEN + entry_bytes) as u16).to_le_bytes());
    header.extend([SPECIFICATION_1_4, checksum]);
    header.extend(b"BULKHEADBULKHEAD    ");
    header.extend(oem_table.to_le_bytes());
    header.extend(oem_table_size.to_le_bytes());
    header.extend(count.to_le_bytes());
    header.extend(LAPIC_ADDRESS.to_le_bytes());
    header.resize(LEN, 0);
    header
}

fn entries(vcpus: u8) -> (Vec<u8>, u16) {
    let ioapic = vcpus.saturating_add(1);
    let mut entries = Vec::new();
    for apic in 0..vcpus {
        entries.extend(processor(apic));
    }
    entries.extend([BUS, ISA]);
    entries.extend(b"ISA   ");
    let enabled = 1;
    entries.extend([IOAPIC, ioapic, APIC_VERSION, enabled]);
    entries.extend(IOAPIC_ADDRESS.to_le_bytes());
    for pin in 0..IOAPIC_PINS {
        entries.extend([INTERRUPT, INT, 0, 0, ISA, pin, ioapic, pin]);
    }
    entries.extend([LOCAL_INTERRUPT, EXT_INT, 0, 0, ISA, 0, 0, 0]);
    entries.extend([LOCAL_INTERRUPT, NMI, 0, 0, ISA, 0, ALL_LAPICS, 1]);
    let count = u16::from(vcpus) + 1 + 1 + u16::from(IOAPIC_PINS) + 2;
    (entries, count)
}

fn processor(apic: u8) -> Vec<u8> {
    let enabled = 1;
    let boot = if apic == 0 { 2 } else { 0 };
    // The signature of a Pentium Pro and the flags FPU, CX8 and APIC: Linux reads CPUID and not these.
    let signature = 0x600_u32;
    let features = 0x201_u32;
    let mut entry = vec![PROCESSOR, apic, APIC_VERSION, enabled | boot];
    entry.extend(signature.to_le_bytes());
    entry.extend(features.to_le_bytes());
    entry.resize(20, 0);
    entry
}

/// Sets the byte at `at` so that all bytes add up to 0.
fn set_checksum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.get_mut(at) {
        *checksum = checksum.wrapping_sub(sum);
    }
}
