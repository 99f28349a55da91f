//! `linux.resources`: each limit is in the container's cgroup, or refused by its path.

use bulkhead_tests::host::TestHost;
use serde_json::{Value, json};

#[test]
fn every_limit_is_a_value_in_the_containers_cgroup() {
    let host = TestHost::new();
    let files = [
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
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
fn a_limit_that_the_guest_cannot_set_is_refused_by_its_path() {
    let host = TestHost::new();
    let refused = |resources: Value, words: &str| {
        let bundle = host.bundle().set("/linux/resources", resources);
        host.run(&bundle).failure(1, &[words]);
        host.assert_no_trace();
    };
    refused(
        json!({ "cpu": { "cpus": "0,31" } }),
        "linux.resources.cpu.cpus: 31 is not one of the microVM's own, 0",
    );
    refused(
        json!({ "cpu": { "mems": "1" } }),
        "linux.resources.cpu.mems: 1 is not one of the microVM's own, 0",
    );
    refused(json!({ "unified": { "memory.nothing": "1" } }), "set limit memory.nothing to 1: no such file");
    refused(
        json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1 }] } }),
        "linux.resources.blockIO.throttleReadBpsDevice[0] is not supported: block device 8:0 is not in the microVM",
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
