use super::*;

fn host(memory_mib: u64, cpus: u32, usable_cpus: u32) -> (u32, u8, u8) {
    let host = Host { memory_mib, cpus, usable_cpus };
    (host.max_memory_mib(), host.max_vcpus(), host.vcpus())
}

#[test]
fn a_microvm_may_have_most_of_its_host_and_no_more_than_one_is_built_for() {
    assert_eq!(host(8192, 2, 2), (7168, 2, 2));
    assert_eq!(host(2 << 20, 256, 256), (65_536, 32, 32));
    assert_eq!(host(u64::MAX, u32::MAX, u32::MAX), (65_536, 32, 32));
    assert_eq!(host(64 << 10, 48, 3), (57_344, 32, 3));
    assert_eq!(host(0, 0, 0), (0, 1, 1));
}

#[test]
fn a_machine_says_what_it_has() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(Host::below(root.path(), 3), Host { memory_mib: 0, cpus: 3, usable_cpus: 3 });
    for (file, text) in [
        ("proc/meminfo", "MemTotal:       2113939396 kB\nMemFree:        1 kB\n"),
        ("sys/devices/system/cpu/online", "0-127,256-383\n"),
    ] {
        fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
        fs::write(root.path().join(file), text).unwrap();
    }
    let expected = Host { memory_mib: 2_064_393, cpus: 256, usable_cpus: 3 };
    assert_eq!(Host::below(root.path(), 3), expected);
}
