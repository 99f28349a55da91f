use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

fn list(text: &str) -> Option<CpuList> {
    Some(CpuList::try_from(text.to_owned()).unwrap())
}

fn throttle(kind: DeviceLimitKind, value: u64) -> DeviceLimit {
    let field = "linux.resources.blockIO.throttle".to_owned();
    DeviceLimit { field, major: 8, minor: 0, kind, value }
}

/// A hierarchy of ordinary files, with a cgroup `web` in it.
struct Group {
    base: TempDir,
}

impl Group {
    fn with(files: &[(&str, &str)]) -> Self {
        let group = Self { base: TempDir::new().unwrap() };
        fs::create_dir(group.path()).unwrap();
        let above = [
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cpuset.cpus.effective", "0-3\n"),
            ("cpuset.mems.effective", "0\n"),
        ];
        for (file, value) in above {
            fs::write(group.base.path().join(file), value).unwrap();
        }
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

    fn has_only(&self, controllers: &str) {
        fs::write(self.base.path().join("cgroup.controllers"), controllers).unwrap();
    }
}

/// Everything that can be asked for.
fn all() -> HostLimits {
    HostLimits {
        cpu_weight: Some(59),
        cpu_idle: Some(false),
        cpus: list("2-3"),
        mems: list("0"),
        io_weight: Some(500),
        device_weights: vec![throttle(DeviceLimitKind::Weight, 1000)],
        throttles: vec![
            throttle(DeviceLimitKind::ReadBytes, 4096),
            throttle(DeviceLimitKind::WriteOperations, 0),
        ],
    }
}

fn written(group: &Group) -> Vec<(&'static str, String)> {
    settings(&group.path(), &all()).into_iter().map(|setting| (setting.file, setting.value)).collect()
}

#[test]
fn limits_become_files_of_the_hosts_cgroup() {
    let same = [("cpu.idle", "0"), ("cpu.weight", "59"), ("cpuset.cpus", "2-3"), ("cpuset.mems", "0")];
    let throttles = [("io.max", "8:0 rbps=4096"), ("io.max", "8:0 wiops=max")];
    let with = |weights: [(&'static str, &'static str); 2]| {
        same.into_iter()
            .chain(weights)
            .chain(throttles)
            .map(|(file, value)| (file, value.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(written(&Group::with(&[])), with([("io.weight", "4950"), ("io.weight", "8:0 10000")]));
    let bfq = Group::with(&[("io.bfq.weight", "100\n")]);
    assert_eq!(written(&bfq), with([("io.bfq.weight", "500"), ("io.bfq.weight", "8:0 1000")]));
}

#[test]
fn an_idle_group_gets_no_weight() {
    let limits = HostLimits { cpu_idle: Some(true), cpu_weight: Some(50), ..HostLimits::default() };
    let files: Vec<_> = settings(Path::new("/"), &limits).into_iter().map(|setting| setting.file).collect();
    assert_eq!(files, ["cpu.idle"]);
}

#[test]
fn a_set_that_the_host_does_not_have_is_refused_by_its_path() {
    let group = Group::with(&[("cpuset.cpus.effective", "1\n")]);
    let below = group.path().join("not/there/yet");
    let refusal = |limits: &HostLimits| check(Some(&group.path()), limits).unwrap_err().to_string();
    let cpus = |text| HostLimits { cpus: list(text), ..HostLimits::default() };
    assert_eq!(refusal(&cpus("3-4")), "linux.resources.cpu.cpus: 4 is not one of the host's, 0-3");
    let mems = HostLimits { mems: list("1"), ..HostLimits::default() };
    assert_eq!(refusal(&mems), "linux.resources.cpu.mems: 1 is not one of the host's, 0");
    // What it has now does not bound what it may have.
    check(Some(&group.path()), &cpus("2-3")).unwrap();
    let refusal = check(Some(&below), &cpus("0")).unwrap_err().to_string();
    assert!(refusal.starts_with("linux.resources.cpu.cpus: 0 is not one of the host's, 1"), "{refusal}");
}

#[test]
fn without_a_controller_a_weight_is_lost_and_a_bound_refused() {
    let group = Group::with(&[]);
    assert!(check(Some(&group.path()), &all()).unwrap().is_empty());
    group.has_only("memory pids\n");
    let path = group.path();
    let sets = HostLimits { cpus: list("0"), ..HostLimits::default() };
    let throttles = HostLimits { throttles: all().throttles, ..HostLimits::default() };
    let weights = HostLimits { cpus: None, mems: None, throttles: vec![], ..all() };
    let refusal = |path: Option<&Path>, limits| check(path, limits).unwrap_err().to_string();
    assert_eq!(
        refusal(Some(&path), &sets),
        "linux.resources.cpu.cpus is not supported: the host gives its cgroup no cpuset controller"
    );
    assert_eq!(
        refusal(Some(&path), &throttles),
        "linux.resources.blockIO.throttle is not supported: the host gives its cgroup no io controller"
    );
    assert_eq!(
        refusal(None, &sets),
        "linux.resources.cpu.cpus is not supported: it has no cgroup on the host"
    );
    let warnings = check(None, &weights).unwrap();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert_eq!(
        warnings[0],
        "linux.resources.cpu.shares does not hold on the host: it has no cgroup on the host"
    );
}

#[test]
fn a_bound_without_a_file_is_refused_and_leaves_the_rest_as_it_was() {
    let group = Group::with(&[
        ("cpu.idle", "0\n"),
        ("cpu.weight", "70\n"),
        ("cpuset.cpus", "\n"),
        ("cpuset.mems", "\n"),
    ]);
    let error = set(&group.path(), &all()).unwrap_err();
    let CgroupError::Limit { field, file, .. } = &error else { panic!("{error:?}") };
    assert_eq!((field.as_str(), *file), ("linux.resources.blockIO.throttle", "io.max"));
    let restored = ["cpu.idle", "cpu.weight", "cpuset.cpus", "cpuset.mems"].map(|file| group.read(file));
    assert_eq!(restored, ["0", "70", "\n", "\n"]);
}

#[test]
fn what_was_set_can_be_taken_back() {
    let group = Group::with(&[("cpu.idle", "1\n"), ("cpu.weight", "0\n"), ("cpuset.cpus", "1\n")]);
    let limits =
        HostLimits { cpu_idle: Some(false), cpus: list("2"), io_weight: Some(10), ..HostLimits::default() };
    let earlier = set(&group.path(), &limits).unwrap();
    assert_eq!(["cpu.idle", "cpuset.cpus"].map(|file| group.read(file)), ["0", "2"]);
    set_back(earlier);
    assert_eq!(["cpu.idle", "cpu.weight", "cpuset.cpus"].map(|file| group.read(file)), ["1", "0\n", "1"]);
}

#[test]
fn a_cgroup_may_use_the_cpus_of_the_nearest_above_that_names_some() {
    let group = Group::with(&[("cpuset.cpus.effective", "0\n")]);
    assert_eq!(cpus_above(&group.path()), Some(4));
    assert_eq!(cpus_above(&group.path().join("a")), Some(1));
    assert_eq!(cpus_above(&group.path().join("a/b/c")), Some(1));
    assert_eq!(cpus_above(Path::new("/nowhere/a")), None);
}
