use super::*;

const SIZES: Sizes = Sizes {
    memory_mib: 128,
    max_memory_mib: 1024,
    vcpus: 1,
    max_vcpus: 4,
    grows_to_mib: 1024,
    files: 128 * 512,
};

/// A cgroup of ordinary files.
fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        fs::write(dir.path().join(file), text).unwrap();
    }
    dir
}

fn fresh() -> tempfile::TempDir {
    group(&[(MEMORY, "max\n"), (CPU, "max 100000\n"), (PIDS, "max\n")])
}

fn read(dir: &tempfile::TempDir, file: &str) -> String {
    fs::read_to_string(dir.path().join(file)).unwrap()
}

/// In MiB.
fn memory_max(dir: &tempfile::TempDir) -> u64 {
    read(dir, MEMORY).parse::<u64>().unwrap() / MIB
}

#[test]
fn a_pod_may_take_its_machine_and_a_margin() {
    let dir = fresh();
    Bounds::begin(dir.path(), SIZES, Memory::Limited).unwrap();
    // 65536 files at 2.5 KiB are 160 MiB.
    assert_eq!(memory_max(&dir), 128 + 64 + 4 + 160);
    assert_eq!((read(&dir, CPU).as_str(), read(&dir, PIDS).as_str()), ("300000 100000", "512"));
}

#[test]
fn the_bounds_follow_a_machine_that_grows_and_only_the_cpus_one_that_shrinks() {
    let dir = fresh();
    let bounds = Bounds::begin(dir.path(), SIZES, Memory::Limited).unwrap();
    bounds.fit(256, 3).unwrap();
    assert_eq!((memory_max(&dir), read(&dir, CPU).as_str()), (256 + 228, "500000 100000"));
    bounds.fit(128, 1).unwrap();
    assert_eq!((memory_max(&dir), read(&dir, CPU).as_str()), (256 + 228, "300000 100000"));
}

#[test]
fn without_a_limit_of_a_container_the_operators_bound_holds() {
    let dir = fresh();
    Bounds::begin(dir.path(), SIZES, Memory::Unlimited).unwrap();
    assert_eq!(memory_max(&dir), 1024 + 228);
    let dir = fresh();
    let bounds = Bounds::begin(dir.path(), SIZES, Memory::Limited).unwrap();
    bounds.lift().unwrap();
    bounds.fit(256, 1).unwrap();
    assert_eq!(memory_max(&dir), 1024 + 228);
}

#[test]
fn what_the_maker_of_a_cgroup_has_set_stays_and_a_missing_controller_is_no_error() {
    let dir = group(&[(MEMORY, "1073741824\n"), (CPU, "50000 100000\n")]);
    let bounds = Bounds::begin(dir.path(), SIZES, Memory::Limited).unwrap();
    bounds.fit(1024, 4).unwrap();
    assert_eq!((read(&dir, MEMORY).as_str(), read(&dir, CPU).as_str()), ("1073741824\n", "50000 100000\n"));
    assert!(!dir.path().join(PIDS).exists());
}

#[test]
fn kills_for_want_of_memory_are_counted() {
    let dir = fresh();
    let bounds = Bounds::begin(dir.path(), SIZES, Memory::Limited).unwrap();
    assert_eq!(bounds.kills(), 0);
    fs::write(dir.path().join("memory.events"), "low 0\noom 7\noom_kill 5\n").unwrap();
    assert_eq!(bounds.kills(), 0);
    fs::write(dir.path().join("memory.events.local"), "low 0\noom 2\noom_kill 1\noom_group_kill 0\n")
        .unwrap();
    assert_eq!(bounds.kills(), 1);
}
