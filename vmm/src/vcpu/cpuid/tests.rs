//! The edit on what real processors say. KVM reports a part of that, and which part depends on its version, so a
//! whole processor is the harder case; what KVMs do differently from the processor is built on top.

use super::*;

const DUMPS: [(&str, &str); 4] = [
    ("Ice Lake", include_str!("dumps/ice-lake.txt")),
    ("Sapphire Rapids", include_str!("dumps/sapphire-rapids.txt")),
    ("Milan", include_str!("dumps/milan.txt")),
    ("Genoa", include_str!("dumps/genoa.txt")),
];
const COUNTS: [u8; 6] = [1, 2, 3, 4, 5, 32];

fn parse(dump: &str) -> CpuId {
    let entry = |line: &str| {
        let mut words = line.split(' ').map(|word| u32::from_str_radix(word, 16).unwrap());
        let mut next = || words.next().unwrap();
        kvm_cpuid_entry2 {
            function: next(),
            index: next(),
            eax: next(),
            ebx: next(),
            ecx: next(),
            edx: next(),
            ..kvm_cpuid_entry2::default()
        }
    };
    let entries: Vec<_> = dump.lines().filter(|line| !line.starts_with('#')).map(entry).collect();
    CpuId::from_entries(&entries).unwrap()
}

fn guest(id: u8, count: u8) -> Guest {
    Guest { id, count, stable_tsc: true }
}

/// What a guest finds in a leaf: zeros where there is none.
struct Cpu(CpuId);

impl Cpu {
    fn of(dump: &str, guest: Guest) -> Self {
        Self(for_vcpu(&parse(dump), guest).unwrap())
    }

    fn leaf(&self, function: u32, index: u32) -> kvm_cpuid_entry2 {
        let found = |entry: &&kvm_cpuid_entry2| (entry.function, entry.index) == (function, index);
        let mut entries = self.0.as_slice().iter().filter(found);
        let entry = entries.next().copied().unwrap_or_default();
        assert!(entries.next().is_none(), "leaf {function:#x}.{index} is there twice");
        entry
    }

    fn bits(&self, function: u32, index: u32) -> [u32; 4] {
        let entry = self.leaf(function, index);
        [entry.eax, entry.ebx, entry.ecx, entry.edx]
    }

    fn amd(&self) -> bool {
        self.leaf(0, 0).ebx == 0x6874_7541
    }
}

/// All dumps, all machines, all their vCPUs.
fn each(mut check: impl FnMut(&Cpu, &str, u8, u8)) {
    for (name, dump) in DUMPS {
        for count in COUNTS {
            for id in 0..count {
                check(&Cpu::of(dump, guest(id, count)), name, id, count);
            }
        }
    }
}

#[test]
fn every_leaf_tells_the_same_topology() {
    each(|cpu, name, id, count| {
        let what = format!("{name}, vCPU {id} of {count}");
        let (id, count) = (u32::from(id), u32::from(count));
        let legacy = cpu.leaf(1, 0);
        assert_eq!((legacy.ebx >> 24, legacy.ebx >> 16 & 0xff), (id, count), "{what}");
        assert_eq!(legacy.edx >> 28 & 1 == 1, count > 1, "{what}");
        let leaves: &[u32] = if cpu.leaf(0, 0).eax >= 0x1f { &[0xb, 0x1f] } else { &[0xb] };
        for leaf in leaves {
            let (threads, cores) = (cpu.leaf(*leaf, 0), cpu.leaf(*leaf, 1));
            assert_eq!((threads.edx, cores.edx), (id, id), "{what}");
            // ecx[15:8]: 1 is a thread, 2 a core. One thread, of a core that has no bit of the id for it.
            assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100), "{what}");
            assert_eq!((cores.ebx, cores.ecx), (count, 0x201), "{what}");
            // One package: no APIC id of the VM reaches beyond the core's bits, and none is wasted.
            assert_eq!((count - 1) >> cores.eax, 0, "{what}");
            assert!(count == 1 || (count - 1) >> (cores.eax - 1) == 1, "{what}");
        }
        assert_eq!(cpu.bits(0x8000_0026, 0), [0; 4], "{what}");
        if cpu.amd() {
            let sizes = cpu.leaf(0x8000_0008, 0);
            assert_eq!((sizes.ecx & 0xff) + 1, count, "{what}");
            assert_eq!(sizes.ecx >> 12 & 0xf, cpu.leaf(0xb, 1).eax, "{what}");
            let topology = cpu.leaf(0x8000_001e, 0);
            // Core `id` with one thread, in node 0 of 1.
            assert_eq!((topology.eax, topology.ebx, topology.ecx), (id, id, 0), "{what}");
        }
    });
}

#[test]
fn caches_are_the_cores_own_but_for_the_last() {
    each(|cpu, name, id, count| {
        let (leaf, cores) = if cpu.amd() { (0x8000_001d, false) } else { (4, true) };
        let caches: Vec<_> = (0..4).map(|index| cpu.leaf(leaf, index).eax).collect();
        let levels: Vec<_> = caches.iter().map(|cache| cache >> 5 & 7).collect();
        assert_eq!(levels, [1, 1, 2, 3], "{name}");
        let ids = u32::from(count).next_power_of_two();
        let sharing: Vec<_> = caches.iter().map(|cache| (cache >> 14 & 0xfff) + 1).collect();
        assert_eq!(sharing, [1, 1, 1, ids], "{name}, vCPU {id} of {count}");
        if cores {
            assert!(caches.iter().all(|cache| (cache >> 26) + 1 == ids), "{name}, vCPU {id} of {count}");
        }
    });
}

#[test]
fn an_empty_cache_stays_the_end_of_the_list() {
    let end = kvm_cpuid_entry2 { function: 4, index: 4, ..kvm_cpuid_entry2::default() };
    let cpuid = for_vcpu(&CpuId::from_entries(&[end]).unwrap(), guest(0, 4)).unwrap();
    assert_eq!(cpuid.as_slice(), [end]);
}

#[test]
fn nothing_of_nested_virtualisation_or_performance_counters_shows() {
    for (name, dump) in DUMPS {
        let host = Cpu(parse(dump));
        let cpu = Cpu::of(dump, guest(0, 2));
        let hidden = [
            ("vmx", 1, 0, 2, 5),
            ("dtes64", 1, 0, 2, 2),
            ("pdcm", 1, 0, 2, 15),
            ("ds", 1, 0, 3, 21),
            ("waitpkg", 7, 0, 2, 5),
            ("arch_lbr", 7, 0, 3, 19),
            ("arch_perfmon_ext", 7, 1, 0, 8),
            ("svm", 0x8000_0001, 0, 2, 2),
            ("ibs", 0x8000_0001, 0, 2, 10),
            ("skinit", 0x8000_0001, 0, 2, 12),
            ("perfctr_core", 0x8000_0001, 0, 2, 23),
            ("perfctr_nb", 0x8000_0001, 0, 2, 24),
            ("perfctr_llc", 0x8000_0001, 0, 2, 28),
        ];
        for (bit, leaf, index, register, at) in hidden {
            assert_eq!(cpu.bits(leaf, index)[register] >> at & 1, 0, "{bit} of {name}");
        }
        for leaf in [0xa, 0x1c, 0x23, 0x8000_000a, 0x8000_001b, 0x8000_0022] {
            assert_eq!(cpu.bits(leaf, 0), [0; 4], "{leaf:#x} of {name}");
        }
        // The dumps have what is hidden, so that hiding it is not for nothing.
        let (nested, counters) = if host.amd() {
            (host.leaf(0x8000_0001, 0).ecx & 1 << 2, host.leaf(0x8000_0001, 0).ecx & 1 << 23)
        } else {
            (host.leaf(1, 0).ecx & 1 << 5, host.leaf(0xa, 0).eax)
        };
        assert!(counters != 0 && (nested != 0 || name == "Ice Lake"), "{name}");
    }
}

#[test]
fn amx_is_gone_and_the_state_has_the_size_of_what_is_left() {
    for (name, dump) in DUMPS {
        let cpu = Cpu::of(dump, guest(0, 2));
        assert_eq!(cpu.leaf(7, 0).edx & (1 << 22 | 1 << 24 | 1 << 25), 0, "{name}");
        assert_eq!((cpu.leaf(7, 1).eax & 1 << 21, cpu.leaf(7, 1).edx & 1 << 8), (0, 0), "{name}");
        for (leaf, index) in [(0x1d, 0), (0x1d, 1), (0x1e, 0), (0xd, 17), (0xd, 18)] {
            assert_eq!(cpu.bits(leaf, index), [0; 4], "{name}");
        }
        let state = cpu.leaf(0xd, 0);
        assert_eq!(state.eax & (1 << 17 | 1 << 18), 0, "{name}");
        assert_eq!(cpu.leaf(0xd, 1).eax & 1 << 4, 0, "{name}: XFD");
        // Every component of the mask is described, and the last one ends where the whole ends.
        let components = (2..32).filter(|index| state.eax >> index & 1 == 1);
        let ends: Vec<_> =
            components.map(|index| cpu.leaf(0xd, index)).map(|part| part.eax + part.ebx).collect();
        assert!(ends.iter().all(|end| *end > 576), "{name}");
        assert_eq!(ends.iter().max(), Some(&state.ecx), "{name}");
    }
    let host = Cpu(parse(DUMPS[1].1));
    assert_eq!(host.leaf(0xd, 0).ecx, 0x2b00, "what the dump says with AMX");
    assert_eq!(Cpu::of(DUMPS[1].1, guest(0, 1)).leaf(0xd, 0).ecx, 0xa88, "and without");
}

/// Linux 5.17 to 6.3: XTILECFG without XTILEDATA, when nobody asked for permission.
#[test]
fn a_kvm_that_reports_half_of_amx_gives_no_guest_that_half() {
    let mut supported = parse(DUMPS[1].1);
    supported.retain(|entry| (entry.function, entry.index) != (0xd, 18));
    for entry in supported.as_mut_slice().iter_mut().filter(|entry| entry.function == 0xd && entry.index == 0)
    {
        entry.eax &= !(1 << 18);
        entry.ecx = 0xb00;
    }
    let state = Cpu(for_vcpu(&supported, guest(0, 2)).unwrap()).leaf(0xd, 0);
    assert_eq!((state.eax, state.ecx), (0x2e7, 0xa88));
}

/// Linux 6.2 and later.
#[test]
fn a_kvm_that_leaves_the_topology_empty_has_it_filled_in() {
    let mut supported = parse(DUMPS[0].1);
    supported.retain(|entry| entry.function != 0xb || entry.index == 0);
    for entry in supported.as_mut_slice().iter_mut().filter(|entry| entry.function == 0xb) {
        (entry.eax, entry.ebx, entry.ecx) = (0, 0, 0);
    }
    let cpu = Cpu(for_vcpu(&supported, guest(2, 3)).unwrap());
    assert_eq!(cpu.bits(0xb, 0), [0, 1, 0x100, 2]);
    assert_eq!(cpu.bits(0xb, 1), [2, 3, 0x201, 2]);
    assert_eq!(cpu.leaf(0xb, 1).flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
}

#[test]
fn a_leaf_beyond_the_last_one_is_not_made() {
    let last = kvm_cpuid_entry2 { eax: 0xa, ..kvm_cpuid_entry2::default() };
    let cpuid = for_vcpu(&CpuId::from_entries(&[last]).unwrap(), guest(0, 2)).unwrap();
    assert_eq!(cpuid.as_slice(), [last]);
}

#[test]
fn the_timer_and_the_hypervisor_show_and_the_tsc_is_invariant_where_the_host_says_so() {
    for (name, dump) in DUMPS {
        for stable_tsc in [true, false] {
            let cpu = Cpu::of(dump, Guest { id: 0, count: 1, stable_tsc });
            let shown = 1 << 24 | 1 << 31;
            assert_eq!(cpu.leaf(1, 0).ecx & shown, shown, "{name}");
            assert_eq!(cpu.leaf(0x8000_0007, 0).edx >> 8 & 1 == 1, stable_tsc, "{name}");
        }
    }
}

#[test]
fn what_is_not_named_stays() {
    for (name, dump) in DUMPS {
        let cpu = Cpu::of(dump, guest(1, 2));
        for (leaf, index) in [(0, 0), (2, 0), (6, 0), (0xd, 2), (0xd, 9), (0x15, 0), (0x8000_0000, 0)] {
            assert_eq!(cpu.bits(leaf, index), Cpu(parse(dump)).bits(leaf, index), "{leaf:#x} of {name}");
        }
    }
}
