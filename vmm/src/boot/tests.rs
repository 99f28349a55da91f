use std::io::{Seek, Write};

use bulkhead_protocol::limits;

use super::*;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// The smallest ELF with one segment at `address` and, when asked, a PVH note that names it as the entry.
fn elf(address: u64, zeroed: u64, note: bool) -> Vec<u8> {
    let mut note_bytes = Vec::new();
    for word in [4_u32, 4, 18] {
        note_bytes.extend(word.to_le_bytes());
    }
    note_bytes.extend(b"Xen\0");
    note_bytes.extend((address as u32).to_le_bytes());
    let headers = 64 + 2 * 56;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [address, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, offset: u64, address: u64, in_file: u64, in_memory: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(5_u32.to_le_bytes());
        for word in [offset, address, address, in_file, in_memory, 4] {
            elf.extend(word.to_le_bytes());
        }
    };
    segment(1, headers + 20, address, 4, zeroed);
    segment(if note { 4 } else { 0 }, headers, 0, 20, 20);
    elf.extend(note_bytes);
    elf.extend(b"code");
    elf
}

const LINE: CommandLine =
    CommandLine { vcpus: 1, max_vcpus: 2, grows: false, debug: false, stable_tsc: true };

#[test]
fn a_guest_relies_on_the_tsc_only_where_the_host_does() {
    assert!(LINE.to_string().contains(" tsc=reliable "));
    assert!(!CommandLine { stable_tsc: false, ..LINE }.to_string().contains("tsc="));
}

#[test]
fn the_mp_table_adds_up_and_fits_for_the_most_vcpus() {
    for vcpus in [1, 2, limits::VCPUS] {
        let table = mptable::table(vcpus);
        assert!(table.len() <= mptable::MAX, "{} bytes for {vcpus}", table.len());
        let (pointer, rest) = table.split_at(16);
        assert_eq!((sum(pointer), sum(rest)), (0, 0));
        assert_eq!(&pointer[..4], b"_MP_");
        assert_eq!(u32::from_le_bytes(pointer[4..8].try_into().unwrap()), 0x9fc10);
        assert_eq!(usize::from(u16::from_le_bytes(rest[4..6].try_into().unwrap())), rest.len());
        assert_eq!(rest[44], 0, "the first entry is a processor");
        assert_eq!(rest.len(), 44 + 20 * usize::from(vcpus) + 8 * (1 + 1 + 24 + 2));
    }
}

#[test]
fn the_command_line_announces_every_slot_and_fits() {
    let line =
        CommandLine { vcpus: 10, max_vcpus: limits::VCPUS, grows: true, debug: true, stable_tsc: true }
            .to_string();
    assert_eq!(line.matches("virtio_mmio.device=4K@0x").count(), limits::SLOTS);
    assert!(line.len() < cmdline::MAX, "{} bytes", line.len());
    assert!(line.contains(" virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"));
    assert!(line.contains(" maxcpus=10 noreplace-smp "));
    assert!(line.contains(" loglevel=8 ") && !line.contains("quiet"));
    assert!(line.contains(" memory_hotplug.online_policy=auto-movable "));
    let plain =
        CommandLine { vcpus: 2, max_vcpus: 2, grows: false, debug: false, stable_tsc: true }.to_string();
    assert!(!plain.contains("maxcpus") && !plain.contains("noreplace-smp"));
    assert!(!plain.contains("memory_hotplug"));
}

#[test]
fn the_memory_map_has_all_memory_of_the_boot_and_none_that_comes_later() {
    let memory = Memory::growing((3 << 30) + (6 << 20), 128 << 20).unwrap();
    load(&memory, &mut file(&elf(0x100_0000, 4096, true)), &mut file(b"070701"), &LINE, 2).unwrap();
    let entries = memory.read_obj::<u32>(GuestAddress(0x6030)).unwrap();
    let entry = |index| memory.read_obj::<[u64; 2]>(GuestAddress(0x7000 + 24 * index)).unwrap();
    let map: Vec<_> = (0..u64::from(entries)).map(entry).collect();
    let expected = [[0, 0x9fc00], [0x9fc00, 0x60400], [1 << 20, (3 << 30) - (1 << 20)], [4 << 30, 6 << 20]];
    assert_eq!(map, expected);
    assert_eq!(memory.read_obj::<u64>(GuestAddress(0x6040)).unwrap(), (3 << 30) - 4096, "the initramfs");
}

#[test]
fn a_kernel_and_an_initramfs_are_loaded_with_their_tables() {
    let memory = Memory::anonymous(48 << 20).unwrap();
    let entry =
        load(&memory, &mut file(&elf(0x100_0000, 4096, true)), &mut file(b"070701"), &LINE, 2).unwrap();
    assert_eq!(entry, Entry { instruction: 0x100_0000, start_info: 0x6000 });
    let word = |address| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x6000)).unwrap(), 0x336e_c578);
    assert_eq!(word(0x6010), 0x6040);
    assert_eq!(word(0x6018), 0x20000);
    assert_eq!(word(0x6028), 0x7000);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x6030)).unwrap(), 3);
    let (address, size) = (word(0x6040), word(0x6048));
    assert_eq!((address, size), ((48 << 20) - 4096, 6));
    let mut found = [0; 6];
    memory.read_slice(&mut found, GuestAddress(address)).unwrap();
    assert_eq!(&found, b"070701");
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x100_0000)).unwrap(), *b"code");
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x9fc00)).unwrap(), *b"_MP_");
    assert_eq!(memory.read_obj::<[u8; 8]>(GuestAddress(0x20000)).unwrap(), *b"console=");
}

#[test]
fn a_file_that_is_no_kernel_is_refused() {
    let memory = Memory::anonymous(48 << 20).unwrap();
    let boot = |kernel: &[u8]| load(&memory, &mut file(kernel), &mut file(b"x"), &LINE, 1);
    assert!(matches!(boot(b""), Err(BootError::Image(ImageError::Kernel { .. }))));
    assert!(matches!(
        boot(b"#!/bin/sh\necho no kernel, but long enough for the header of an ELF file\n"),
        Err(BootError::Image(ImageError::Kernel { .. }))
    ));
    assert!(matches!(boot(&elf(0x100_0000, 4, false)), Err(BootError::Image(ImageError::NoPvhEntry))));
    assert!(matches!(boot(&elf(0x1000, 4, true)), Err(BootError::Image(ImageError::Place { .. }))));
}

#[test]
fn memory_too_small_is_refused_with_the_size_that_would_do() {
    let memory = Memory::anonymous(48 << 20).unwrap();
    let kernel = elf(0x100_0000, 40 << 20, true);
    let refused = load(&memory, &mut file(&kernel), &mut file(b"x"), &LINE, 1);
    assert!(matches!(refused, Err(BootError::TooSmall { have: 48, need: 57 })), "{refused:?}");
    let initramfs = vec![0; 20 << 20];
    let refused = load(&memory, &mut file(&elf(0x100_0000, 4, true)), &mut file(&initramfs), &LINE, 1);
    assert!(matches!(refused, Err(BootError::TooSmall { .. })), "{refused:?}");
}

#[test]
fn an_empty_initramfs_is_refused() {
    let memory = Memory::anonymous(48 << 20).unwrap();
    let refused = load(&memory, &mut file(&elf(0x100_0000, 4, true)), &mut file(b""), &LINE, 1);
    assert!(matches!(refused, Err(BootError::Image(ImageError::EmptyInitramfs))));
}
