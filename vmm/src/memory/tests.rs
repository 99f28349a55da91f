use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::*;

const GIB: u64 = 1 << 30;

/// Pages of `memory`'s `len` bytes at `address` that the host holds.
fn resident(memory: &Memory, address: u64, len: usize) -> usize {
    let host = memory.host(address, len as u64).unwrap();
    let mut pages = vec![0; len / 4096];
    // SAFETY: the range is mapped, and the vector has one byte for each of its pages.
    assert_eq!(unsafe { libc::mincore(host as *mut libc::c_void, len, pages.as_mut_ptr()) }, 0);
    pages.iter().filter(|page| *page & 1 == 1).count()
}

/// Whether this process may touch a byte, asked of the kernel, which answers with an error where we would fault.
fn accessible(memory: &Memory, address: u64) -> bool {
    let host = memory.host(address, 1).unwrap();
    let file = tempfile::tempfile().unwrap();
    // SAFETY: reads one byte of the mapping, or fails with EFAULT.
    unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&file), host as *const libc::c_void, 1) == 1 }
}

#[test]
fn memory_is_aligned_to_large_pages_and_zero() {
    let memory = Memory::anonymous(5 << 20).unwrap();
    assert!(memory.regions().all(|(_, host)| (host as usize).is_multiple_of(HUGE_PAGE)));
    assert_eq!(memory.low(), 6 << 20);
    assert_eq!(memory.last_addr(), GuestAddress((6 << 20) - 1));
    assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1234)).unwrap(), 0);
}

#[test]
fn a_second_view_sees_the_same_bytes_and_outlives_the_first() {
    let memory = Memory::anonymous(HUGE_PAGE).unwrap();
    let view = memory.view::<BitmapMmapRegion>().unwrap();
    memory.write_obj(0xfeed_u16, GuestAddress(0x100)).unwrap();
    drop(memory);
    assert_eq!(view.read_obj::<u16>(GuestAddress(0x100)).unwrap(), 0xfeed);
}

#[test]
fn no_memory_at_all_is_refused_and_so_is_more_than_there_are_addresses() {
    assert!(Memory::anonymous(0).is_err());
    assert!(Memory::anonymous(usize::MAX).is_err());
    assert!(Memory::growing(HUGE_PAGE, usize::MAX - 1).is_err());
}

#[test]
fn memory_leaves_the_hole_below_4_gib_free() {
    let guest = |boot: u64, hotplug: usize| {
        let layout = Layout::new(boot as usize, hotplug).unwrap();
        layout.regions().map(|region| (region.guest, region.size as u64)).collect::<Vec<_>>()
    };
    assert_eq!(guest(3 * GIB, 0), [(0, 3 * GIB)]);
    assert_eq!(guest(5 * GIB, 0), [(0, 3 * GIB), (4 * GIB, 2 * GIB)]);
    // Room to grow lies above 4 GiB, on a boundary of Linux's memory blocks, whatever is below it.
    assert_eq!(guest(64 << 20, 1), [(0, 64 << 20), (4 * GIB, 128 << 20)]);
    assert_eq!(
        guest(3 * GIB + (2 << 20), 128 << 20),
        [(0, 3 * GIB), (4 * GIB, 2 << 20), (4 * GIB + (128 << 20), 128 << 20)]
    );
}

#[test]
fn high_memory_is_where_the_layout_says() {
    let memory = Memory::anonymous((3 * GIB) as usize + HUGE_PAGE).unwrap();
    memory.write_obj(7_u8, GuestAddress(4 * GIB)).unwrap();
    assert!(memory.read_obj::<u8>(GuestAddress(3 * GIB)).is_err());
    assert_eq!(memory.low() as u64, 3 * GIB);
}

#[test]
fn what_is_discarded_reads_as_zero_and_costs_the_host_nothing() {
    let memory = Memory::anonymous(2 * HUGE_PAGE).unwrap();
    memory.write_slice(&[1; 3 * 4096], GuestAddress(0)).unwrap();
    // Only whole pages go: the second.
    assert_eq!(memory.discard(100, 2 * 4096).unwrap(), 4096);
    let bytes = [0, 4096, 2 * 4096].map(|at| memory.read_obj::<u8>(GuestAddress(at)).unwrap());
    assert_eq!(bytes, [1, 0, 1]);
    assert_eq!(memory.discard(0, HUGE_PAGE as u64).unwrap(), HUGE_PAGE as u64);
    assert_eq!(resident(&memory, 0, HUGE_PAGE), 0);
    assert_eq!(memory.discard(5, 3).unwrap(), 0);
}

#[test]
fn ranges_outside_of_memory_or_across_its_regions_are_refused() {
    let memory = Memory::growing((3 * GIB) as usize + HUGE_PAGE, MEMORY_BLOCK).unwrap();
    for (address, len) in [
        (3 * GIB, 4096),
        (3 * GIB - 4096, 8192),
        (0, u64::MAX),
        (u64::MAX, 1),
        (u64::MAX - 4095, 4096),
        (4 * GIB, 128 << 20),
        (4 * GIB + (256 << 20), 1),
    ] {
        assert!(memory.discard(address, len).is_err(), "{address:#x} {len:#x}");
        assert!(memory.set_accessible(address, len, true).is_err(), "{address:#x} {len:#x}");
    }
}

#[test]
fn room_to_grow_is_not_accessible_until_it_is_given() {
    let memory = Memory::growing(HUGE_PAGE, MEMORY_BLOCK).unwrap();
    let block = |index: u64| 4 * GIB + index * HUGE_PAGE as u64;
    assert!(!accessible(&memory, block(0)));
    memory.set_accessible(block(1), HUGE_PAGE as u64, true).unwrap();
    assert_eq!([0, 1, 2].map(|index| accessible(&memory, block(index))), [false, true, false]);
    memory.write_obj(7_u8, GuestAddress(block(1))).unwrap();
    memory.set_accessible(block(1), HUGE_PAGE as u64, false).unwrap();
    assert!(!accessible(&memory, block(1)));
}

/// What the kernel was told of the mapping at an address: two letters each (proc_pid_smaps(5), VmFlags).
fn flags(host: u64) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.and_then(|(start, end)| Some((number(start)?, number(end)?))) {
            inside = (start..end).contains(&host);
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && inside
        {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    Vec::new()
}

#[test]
fn huge_pages_are_asked_for_or_forbidden_in_all_of_memory() {
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        return;
    }
    for (huge_pages, told, not) in [(HugePages::Always, "hg", "nh"), (HugePages::Never, "nh", "hg")] {
        let memory = Memory::growing(HUGE_PAGE, MEMORY_BLOCK).unwrap();
        memory.advise(huge_pages);
        for (_, host) in memory.regions() {
            let flags = flags(host);
            assert!(flags.iter().any(|flag| flag == told), "{flags:?}");
            assert!(flags.iter().all(|flag| flag != not), "{flags:?}");
        }
    }
}

#[test]
fn guest_memory_is_never_merged_with_that_of_others() {
    /// linux/prctl.h, Linux 6.4.
    const PR_SET_MEMORY_MERGE: i32 = 67;
    let merge_all = |on: libc::c_ulong| {
        let none: libc::c_ulong = 0;
        // SAFETY: passes numbers only. What this test process maps meanwhile may be merged, which changes no contents.
        unsafe { libc::prctl(PR_SET_MEMORY_MERGE, on, none, none, none) == 0 }
    };
    if !merge_all(1) {
        return;
    }
    let memory = Memory::growing(HUGE_PAGE, MEMORY_BLOCK).unwrap();
    let merged = memory.regions().any(|(_, host)| flags(host).iter().any(|flag| flag == "mg"));
    merge_all(0);
    assert!(!merged);
}
