use std::{collections::BTreeMap, path::PathBuf};

use tempfile::TempDir;

use super::*;

fn written(resources: &Resources) -> Vec<Setting> {
    files(resources, resources.cpu_quota.map(text).as_deref()).unwrap()
}

fn pair(file: &str, value: &str) -> Setting {
    (file.to_owned(), value.to_owned())
}

/// A cgroup as ordinary files.
struct Group {
    base: TempDir,
}

impl Group {
    fn with(files: &[(&str, &str)]) -> Self {
        let group = Self { base: TempDir::new().unwrap() };
        fs::create_dir(group.path()).unwrap();
        for (file, value) in files {
            fs::write(group.path().join(file), value).unwrap();
        }
        group
    }

    fn path(&self) -> PathBuf {
        self.base.path().join("web")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap()
    }
}

#[test]
fn nothing_asked_for_writes_nothing() {
    assert!(written(&Resources::default()).is_empty());
}

#[test]
fn limits_become_files_in_an_order_that_works() {
    let resources = Resources {
        memory_max: Some(Limit::Value(64 << 20)),
        memory_swap_max: Some(Limit::Value(0)),
        cpu_quota: Some(Limit::Value(50_000)),
        cpu_period: Some(100_000),
        pids_max: Some(Limit::Max),
        io_weight: Some(50),
        hugetlb_max: BTreeMap::from([("2MB".to_owned(), Limit::Value(0))]),
        unified: BTreeMap::from([("memory.high".to_owned(), "1G".to_owned())]),
        ..Resources::default()
    };
    assert_eq!(
        written(&resources),
        [
            pair("memory.swap.max", "0"),
            pair("memory.max", "67108864"),
            pair("cpu.max", "50000 100000"),
            pair("pids.max", "max"),
            pair("io.weight", "50"),
            pair("hugetlb.2MB.max", "0"),
            pair("hugetlb.2MB.rsvd.max", "0"),
            pair("memory.high", "1G"),
        ]
    );
}

#[test]
fn a_burst_steps_aside_while_the_quota_changes() {
    let both = Resources { cpu_quota: Some(Limit::Max), cpu_burst: Some(7), ..Resources::default() };
    let expected = [pair("cpu.max.burst", "0"), pair("cpu.max", "max"), pair("cpu.max.burst", "7")];
    assert_eq!(written(&both), expected);
    let alone = Resources { cpu_burst: Some(7), ..Resources::default() };
    assert_eq!(written(&alone), [pair("cpu.max.burst", "7")]);
}

#[test]
fn an_idle_group_gets_no_weight() {
    let with = |idle| Resources { cpu_idle: Some(idle), cpu_weight: Some(50), ..Resources::default() };
    assert_eq!(written(&with(true)), [pair("cpu.idle", "1")]);
    assert_eq!(written(&with(false)), [pair("cpu.idle", "0"), pair("cpu.weight", "50")]);
}

#[test]
fn a_period_without_a_quota_keeps_the_quota() {
    let group = Group::with(&[("cpu.max", "5000 100000\n")]);
    replace(&group.path(), &Resources { cpu_period: Some(20_000), ..Resources::default() }).unwrap();
    assert_eq!(group.read("cpu.max"), "5000 20000");
}

#[test]
fn a_unified_key_cannot_leave_the_cgroup_or_move_processes() {
    for key in ["../memory.max", "memory/max", "cgroup.procs", "cgroup.kill", "memory", ".max", "memory.", ""]
    {
        let unified = BTreeMap::from([(key.to_owned(), "1".to_owned())]);
        assert!(files(&Resources { unified, ..Resources::default() }, None).is_err(), "{key}");
    }
}

#[test]
fn a_failed_change_restores_what_was_changed_before() {
    let group = Group::with(&[
        ("memory.max", "max\n"),
        ("cpu.idle", "0\n"),
        ("cpu.weight", "70\n"),
        ("memory.low", "\n"),
    ]);
    let resources = Resources {
        memory_max: Some(Limit::Value(5)),
        cpu_idle: Some(true),
        memory_low: Some(Limit::Value(1)),
        pids_max: Some(Limit::Value(3)),
        ..Resources::default()
    };
    let error = replace(&group.path(), &resources).unwrap_err().chain();
    assert_eq!(error, "read limit pids.max: no such file or directory");
    assert_eq!(group.read("memory.max"), "max\n");

    // Can be read and not be written, by root neither.
    std::os::unix::fs::symlink("/proc/uptime", group.path().join("pids.max")).unwrap();
    let error = replace(&group.path(), &resources).unwrap_err().chain();
    assert!(error.starts_with("set limit pids.max to 3: "), "{error}");
    let restored = ["memory.max", "cpu.idle", "cpu.weight", "memory.low"].map(|file| group.read(file));
    assert_eq!(restored, ["max", "0", "70", "\n"]);
}

#[test]
fn a_change_that_works_leaves_the_rest_alone() {
    let group = Group::with(&[("memory.max", "max\n"), ("pids.max", "9\n")]);
    let resources = Resources { memory_max: Some(Limit::Value(5)), ..Resources::default() };
    replace(&group.path(), &resources).unwrap();
    assert_eq!((group.read("memory.max"), group.read("pids.max")), ("5".into(), "9\n".into()));
}

#[test]
fn a_page_size_that_the_guest_lacks_is_refused() {
    let group = Group::with(&[("hugetlb.2MB.max", "max\n"), ("hugetlb.2MB.rsvd.max", "max\n")]);
    let of = |size: &str| Resources {
        hugetlb_max: BTreeMap::from([(size.to_owned(), Limit::Value(0))]),
        ..Resources::default()
    };
    write(&group.path(), &of("2MB")).unwrap();
    for size in ["1GB", "../web/hugetlb.2MB"] {
        let error = write(&group.path(), &of(size)).unwrap_err().chain();
        let expected = format!("linux.resources.hugepageLimits: the microVM has no huge pages of {size}");
        assert_eq!(error, expected);
    }
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_when_asked_to_check() {
    let group = Group::with(&[("memory.max", "max\n"), ("memory.current", "4096\n")]);
    let limit = |bytes| Resources {
        memory_max: Some(Limit::Value(bytes)),
        memory_check_before_update: true,
        ..Resources::default()
    };
    let error = replace(&group.path(), &limit(4095)).unwrap_err().chain();
    assert!(error.starts_with("linux.resources.memory.limit: 4095 bytes are less than the 4096 in use"));
    assert_eq!(group.read("memory.max"), "max\n");
    replace(&group.path(), &limit(4096)).unwrap();
    assert_eq!(group.read("memory.max"), "4096");
}
