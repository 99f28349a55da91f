use super::*;

const MEMINFO: &str = "MemTotal:  8388608 kB\nMemFree:  10 kB\nMemAvailable:  4194304 kB\n";

/// A cgroup whose files say so many MiB.
fn group(max: Option<u64>, current: u64, files: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let max = max.map_or_else(|| "max".to_owned(), |mib| (mib * MIB).to_string());
    let stat = format!("anon 1\nfile 9\ninactive_file {}\nactive_file {MIB}\n", files * MIB - MIB);
    for (file, text) in [
        ("memory.max", max),
        ("memory.high", "max\n".into()),
        ("memory.current", (current * MIB).to_string()),
        ("memory.stat", stat),
    ] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    dir
}

#[test]
fn a_pod_may_have_what_the_host_and_each_cgroup_above_it_have_left() {
    let wide = group(Some(3000), 1000, 100);
    let narrow = group(Some(1000), 600, 200);
    let free = group(None, 5000, 1);
    let left = |groups: &[&tempfile::TempDir]| of(MEMINFO, groups.iter().map(|group| group.path()));
    assert_eq!(left(&[]), 4096 - RESERVE);
    assert_eq!(left(&[&free]), 4096 - RESERVE);
    assert_eq!(left(&[&free, &wide]), 2100 - RESERVE);
    assert_eq!(left(&[&narrow, &wide]), 600 - RESERVE);
}

#[test]
fn a_host_or_a_cgroup_without_memory_has_nothing_left() {
    assert_eq!(of("MemAvailable: 4096 kB\n", [].into_iter()), 0);
    let full = group(Some(100), 200, 1);
    assert_eq!(of(MEMINFO, [full.path()].into_iter()), 0);
}

#[test]
fn what_cannot_be_read_bounds_nothing() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(of("", [empty.path()].into_iter()), u64::MAX);
}

#[test]
fn what_a_guest_has_not_touched_yet_is_taken_all_the_same() {
    let pod = group(Some(720), 480, 10);
    assert_eq!(untouched(pod.path(), 512), 42);
    assert_eq!(untouched(pod.path(), 400), 0);
    assert_eq!(untouched(Path::new("/nowhere"), 512), 0);
    assert!(headroom(Some(pod.path()), 512) < headroom(Some(pod.path()), 400));
}
