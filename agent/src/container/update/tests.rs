use super::*;

/// Plain files in place of a cgroup's.
fn cgroup(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let dir = tempfile::tempdir().unwrap();
    let cgroup = Cgroup::of(dir.path(), &"c".parse().unwrap());
    fs::create_dir_all(cgroup.path()).unwrap();
    for (file, value) in files {
        fs::write(cgroup.path().join(file), value).unwrap();
    }
    (dir, cgroup)
}

fn value(cgroup: &Cgroup, file: &str) -> String {
    fs::read_to_string(cgroup.path().join(file)).unwrap()
}

#[test]
fn what_is_not_given_stays() {
    let (_dir, cgroup) = cgroup(&[("memory.max", "1000\n"), ("pids.max", "max\n")]);
    cgroup.update(&Resources { pids_max: Some(Limit::Value(7)), ..Resources::default() }).unwrap();
    assert_eq!((value(&cgroup, "memory.max"), value(&cgroup, "pids.max")), ("1000\n".into(), "7".into()));
}

#[test]
fn a_period_alone_keeps_the_quota() {
    let (_dir, cgroup) = cgroup(&[("cpu.max", "50000 100000\n")]);
    cgroup.update(&Resources { cpu_period: Some(200_000), ..Resources::default() }).unwrap();
    assert_eq!(value(&cgroup, "cpu.max"), "50000 200000");
    let all = Resources { cpu_quota: Some(Limit::Max), cpu_period: Some(100_000), ..Resources::default() };
    cgroup.update(&all).unwrap();
    assert_eq!(value(&cgroup, "cpu.max"), "max 100000");
}

#[test]
fn a_limit_that_is_missing_is_named_before_anything_changes() {
    let (_dir, cgroup) = cgroup(&[("memory.max", "1000\n")]);
    let resources = Resources {
        memory_max: Some(Limit::Value(2000)),
        pids_max: Some(Limit::Max),
        ..Resources::default()
    };
    let error = cgroup.update(&resources).unwrap_err().chain();
    assert_eq!(error, "read limit pids.max: no such file or directory");
    assert_eq!(value(&cgroup, "memory.max"), "1000\n");
}

#[test]
fn what_was_changed_before_a_failure_is_put_back() {
    let change = |path: PathBuf, before: &str| Change { path, before: before.into(), value: String::new() };
    let (_dir, cgroup) = cgroup(&[("memory.max", "2000"), ("pids.max", "7")]);
    let path = |file| cgroup.path().join(file);
    roll_back(&[change(path("memory.max"), "1000\n"), change(path("pids.max"), "max\n")]);
    assert_eq!((value(&cgroup, "memory.max"), value(&cgroup, "pids.max")), ("1000".into(), "max".into()));
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_when_that_is_asked_for() {
    let (_dir, cgroup) = cgroup(&[("memory.current", "5000\n")]);
    let limit = |memory_max| Resources { memory_max: Some(memory_max), ..Resources::default() };
    cgroup.check_memory(&limit(Limit::Value(5000))).unwrap();
    cgroup.check_memory(&limit(Limit::Max)).unwrap();
    let error = cgroup.check_memory(&limit(Limit::Value(4999))).unwrap_err();
    assert_eq!(error.to_string(), "memory.limit 4999 is below the 5000 bytes in use");
}
