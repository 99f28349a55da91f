//! `linux.resources`: each limit is in the container's cgroup, in the guest or on the host, or refused by its path.

use std::fs;

use bulkhead_tests::host::{Container, DEADLINE, TestHost, finish};
use serde_json::{Value, json};

#[test]
fn every_limit_is_a_value_in_the_containers_cgroup() {
    let host = TestHost::new();
    let files = [
        // The host's numbers, which hold there.
        ("cpuset.cpus", ""),
        ("cpuset.mems", ""),
        ("cpu.weight", "100"),
        ("cpu.max", "90000 100000"),
        ("cpu.max.burst", "20000"),
        ("memory.max", "67108864"),
        ("memory.swap.max", "8388608"),
        ("pids.max", "33"),
        ("io.weight", "default 4950"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("memory.high", "33554432"),
        ("memory.oom.group", "1"),
    ];
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let bundle = host
        .bundle()
        .set(
            "/linux/resources",
            json!({
                "cpu": { "shares": 1024, "quota": 90_000, "period": 100_000, "burst": 20_000, "cpus": "0", "mems": "0" },
                "memory": { "limit": 67_108_864, "swap": 75_497_472, "checkBeforeUpdate": true },
                "pids": { "limit": 33 },
                "blockIO": { "weight": 500 },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }],
                "unified": { "memory.high": "33554432", "memory.oom.group": "1" }
            }),
        )
        .sh(&format!("cd /sys/fs/cgroup; for file in {}; do cat $file; done", names.join(" ")));
    let text = host.run(&bundle).success();
    let seen: Vec<&str> = text.lines().collect();
    assert_eq!(seen, files.map(|(_, value)| value));
}

#[test]
fn a_limit_that_cannot_be_set_is_refused_by_its_path() {
    let host = TestHost::new();
    let refused = |resources: Value, words: &str| {
        let bundle = host.bundle().set("/linux/resources", resources);
        host.run(&bundle).failure(1, &[words]);
        host.assert_no_trace();
    };
    refused(
        json!({ "cpu": { "cpus": "0,4095" } }),
        "linux.resources.cpu.cpus: 4095 is not one of the host's, 0",
    );
    refused(
        json!({ "cpu": { "mems": "1023" } }),
        "linux.resources.cpu.mems: 1023 is not one of the host's, 0",
    );
    refused(json!({ "unified": { "memory.nothing": "1" } }), "set limit memory.nothing to 1: no such file");
    refused(
        json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 4095, "minor": 0, "rate": 1 }] } }),
        "linux.resources.blockIO.throttleReadBpsDevice[0]: set io.max of its cgroup on the host to \"4095:0 rbps=1\"",
    );
}

#[test]
fn a_limit_of_no_processes_lets_none_be_made() {
    let host = TestHost::new();
    let bundle =
        host.bundle().set("/linux/resources", json!({ "pids": { "limit": 0 } })).sh("cat /bin/sh; echo no");
    let finished = host.run(&bundle);
    assert!(finished.errors().contains("can't fork"), "{finished:?}");
}

/// A file of the cgroup on the host in which a container's processes are.
fn on_host(container: &Container<'_>, file: &str) -> String {
    let path = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    let path = path.trim().strip_prefix("0::").unwrap();
    fs::read_to_string(format!("/sys/fs/cgroup{path}/{file}")).unwrap().trim().to_owned()
}

/// Number of the host's last CPU.
fn last_cpu() -> u32 {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    online.trim().rsplit([',', '-']).next().unwrap().parse().unwrap()
}

#[test]
fn limits_of_a_microvm_as_a_whole_are_values_in_its_cgroup_on_the_host() {
    let host = TestHost::new();
    let last = last_cpu().to_string();
    let resources = json!({ "cpu": { "shares": 512, "cpus": last, "mems": "0" } });
    let bundle = host.bundle().set("/linux/resources", resources).args(["probe", "linger"]);
    let container = host.create("whole", &bundle);
    container.start();
    container.until_stdout("ready");
    let files = || {
        let files = ["cpu.weight", "cpuset.cpus", "cpuset.cpus.effective", "cpuset.mems"];
        files.map(|file| on_host(&container, file))
    };
    let guest = |file: &str| container.exec(["cat", file]).success().trim().to_owned();
    let weight = || guest("/sys/fs/cgroup/cpu.weight");
    assert_eq!(files(), ["59", &last, &last, "0"]);
    // One CPU of the host is one of the guest, whatever its number.
    assert_eq!((guest("/sys/devices/system/cpu/online").as_str(), weight().as_str()), ("0", "59"));
    // The machine is charged to it.
    assert!(on_host(&container, "memory.current").parse::<u64>().unwrap() > 16 << 20);
    assert!(on_host(&container, "pids.current").parse::<u64>().unwrap() > 3);

    let all = fs::read_to_string("/sys/fs/cgroup/cpuset.cpus.effective").unwrap().trim().to_owned();
    container.command("update", ["--cpu-share=1024", &format!("--cpuset-cpus={all}")]).success();
    let updated = ["100", &all, &all, "0"];
    assert_eq!((files(), weight()), (updated.map(str::to_owned), "100".into()));
    let online = guest("/sys/devices/system/cpu/online");
    assert_eq!(online == "0", all == "0", "{online} of {all}");

    // What the guest or the host refuses leaves both as they were.
    let refusals = [
        (
            json!({ "cpu": { "shares": 2, "cpus": last }, "unified": { "memory.high": "nonsense" } }),
            "memory.high",
        ),
        (
            json!({ "cpu": { "shares": 2, "cpus": "4095" } }),
            "linux.resources.cpu.cpus: 4095 is not one of the host's",
        ),
    ];
    for (resources, words) in refusals {
        let mut command = host.bulkhead(["update", "-r", "-", &container.id]);
        finish(&mut command, resources.to_string().as_bytes(), DEADLINE).failure(1, &[words]);
        assert_eq!((files(), weight()), (updated.map(str::to_owned), "100".into()));
    }
    assert_eq!(guest("/sys/devices/system/cpu/online"), online);
    container.delete_force();
    host.assert_no_trace();
}
