//! `--systemd-cgroup`: a container's cgroup is a unit of systemd.

use std::{collections::BTreeMap, fs, process::Command, process::Stdio};

use bulkhead_tests::host::{DEADLINE, Finished, Systemd, TestHost, finish};
use serde_json::json;

fn run(systemd: &Systemd, command: &Command) -> Finished {
    finish(&mut systemd.inside(command), b"", DEADLINE)
}

/// What systemd says of a unit.
fn show(systemd: &Systemd, unit: &str) -> BTreeMap<String, String> {
    let mut command = Command::new("systemctl");
    command.args(["show", unit]);
    let text = run(systemd, &command).success();
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

#[test]
fn a_container_is_a_scope_that_survives_a_reload_and_goes_with_it() {
    let host = TestHost::new();
    let systemd = Systemd::start(&host);
    let id = host.id("web");
    let unit = format!("bulkhead-{id}.scope");
    let bulkhead = |words: &[&str]| run(&systemd, &host.bulkhead([&["--systemd-cgroup"], words].concat()));
    let bundle = host
        .bundle()
        .set("/linux/cgroupsPath", json!(format!("machine.slice:bulkhead:{id}")))
        .set("/linux/resources", json!({ "cpu": { "shares": 512, "quota": 100_000, "period": 100_000 }, "memory": { "limit": 64 << 20 } }))
        .args(["probe", "linger"]);
    let mut create = host.bulkhead(["--systemd-cgroup", "create", "--bundle"]);
    create.arg(bundle.write()).arg(&id);
    let mut create = systemd.inside(&create);
    let errors = fs::File::create(host.dir().join("create.err")).unwrap();
    let made = create.stdout(Stdio::null()).stderr(errors).status().unwrap();
    assert!(made.success(), "{}", fs::read_to_string(host.dir().join("create.err")).unwrap());
    bulkhead(&["start", &id]).success();

    let directory = systemd.group().join("machine.slice").join(&unit);
    let file = |name: &str| {
        let read = fs::read_to_string(directory.join(name));
        read.unwrap_or_else(|e| panic!("{name}: {e}; {:?}", show(&systemd, &unit))).trim().to_owned()
    };
    let limits = || ["cpu.weight", "cpu.max", "memory.max", "pids.max", "cgroup.controllers"].map(file);
    let before = limits();
    assert_eq!((before[0].as_str(), before[1].as_str()), ("59", "300000 100000"));
    // What held the scope has gone. Older kernels put a thread of KVM's beside the VMM.
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned();
    let mut inside: Vec<String> = file("cgroup.procs").lines().map(name).collect();
    inside.retain(|name| !name.starts_with("kvm-"));
    inside.sort();
    assert_eq!(inside, ["bulkhead-proxy", "bulkhead-server", "bulkhead-vmm"]);
    let shown = show(&systemd, &unit);
    let expected = [
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("Slice", "machine.slice"),
        ("ControlGroup", &format!("/machine.slice/{unit}")),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "3s"),
        ("MemoryMax", &before[2]),
    ];
    for (property, value) in expected {
        assert_eq!(shown.get(property).map(String::as_str), Some(value), "{property}");
    }

    let mut reload = Command::new("systemctl");
    reload.arg("daemon-reload");
    run(&systemd, &reload).success();
    assert_eq!(limits(), before);
    bulkhead(&["update", "--cpu-share=1024", &id]).success();
    run(&systemd, &reload).success();
    assert_eq!((file("cpu.weight").as_str(), show(&systemd, &unit)["CPUWeight"].as_str()), ("100", "100"));

    // The unit is taken, for another container too.
    let other = host.id("other");
    let second = bundle.write().to_owned();
    bulkhead(&["run", "--bundle", second.to_str().unwrap(), &other]).failure(1, &["is not empty"]);

    bulkhead(&["delete", "--force", &id]).success();
    assert!(!directory.exists());
    assert_eq!(show(&systemd, &unit)["LoadState"], "not-found");
    drop(systemd);
    host.assert_no_trace();
}

#[test]
fn without_systemd_the_flag_is_refused() {
    let host = TestHost::new();
    if std::path::Path::new("/run/systemd/system").exists() {
        return;
    }
    let mut run = host.bulkhead(["--systemd-cgroup", "run", "--bundle"]);
    run.arg(host.bundle().write()).arg(host.id("run"));
    let words = ["--systemd-cgroup needs systemd, and systemd is not the init system of this host"];
    finish(&mut run, b"", DEADLINE).failure(1, &words);
    host.assert_no_trace();
}
