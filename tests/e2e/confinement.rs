//! What the spec asks for is what the container sees: asserted on the probe's report.

use bulkhead_tests::host::TestHost;
use serde_json::{Value, json};

fn report(host: &TestHost, bundle: &bulkhead_tests::host::Bundle) -> Value {
    serde_json::from_str(&host.run(bundle).success()).expect("the report is JSON")
}

#[test]
fn the_default_container_is_confined_as_its_spec_says() {
    let host = TestHost::new();
    let seen = report(&host, &host.bundle());
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["hostname"], "bulkhead-test");
    assert_eq!(seen["interfaces"], json!(["lo"]));
    assert_eq!(seen["fds"], json!(["0", "1", "2"]));
    assert_eq!(seen["cgroup"], "0::/");
    assert_eq!(seen["status"]["NoNewPrivs"], "1");
    assert_eq!(seen["status"]["CapEff"], "00000000200004e1");
    assert_eq!(seen["status"]["CapBnd"], "00000000200004e1");
    assert_eq!(seen["status"]["CapInh"], "0000000000000000");
    assert_eq!(seen["status"]["CapAmb"], "0000000000000000");
    let limits = seen["limits"].as_array().unwrap();
    let files =
        limits.iter().filter_map(Value::as_str).find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["1024", "1024"]);
}

#[test]
fn devices_and_their_links_are_there() {
    let host = TestHost::new();
    let devices = &report(&host, &host.bundle())["devices"];
    for (name, expected) in [
        ("null", "c 1:3 666 0:0"),
        ("zero", "c 1:5 666 0:0"),
        ("full", "c 1:7 666 0:0"),
        ("random", "c 1:8 666 0:0"),
        ("urandom", "c 1:9 666 0:0"),
        ("tty", "c 5:0 666 0:0"),
        ("fd", "-> /proc/self/fd"),
        ("stdin", "-> /proc/self/fd/0"),
        ("stdout", "-> /proc/self/fd/1"),
        ("stderr", "-> /proc/self/fd/2"),
        ("ptmx", "-> pts/ptmx"),
    ] {
        assert_eq!(devices[name], expected, "{name}");
    }
}

#[test]
fn mounts_carry_their_options_and_paths_are_masked() {
    let host = TestHost::new();
    let seen = report(&host, &host.bundle());
    let mounts: Vec<Vec<&str>> = seen["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap().split(' ').collect())
        .collect();
    let options = |path: &str| {
        let line =
            mounts.iter().rev().find(|line| line[4] == path).unwrap_or_else(|| panic!("no mount on {path}"));
        line[5].split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let has = |path: &str, wanted: &[&str]| {
        let options = options(path);
        wanted.iter().for_each(|option| assert!(options.iter().any(|o| o == option), "{path}: {options:?}"));
    };
    has("/dev/shm", &["rw", "nosuid", "nodev", "noexec"]);
    has("/sys", &["ro", "nosuid", "nodev", "noexec"]);
    has("/sys/fs/cgroup", &["ro"]);
    has("/proc/sys", &["ro"]);
    has("/proc/sysrq-trigger", &["ro"]);
    let script = "cat /proc/kcore; cat /proc/keys; ls /sys/firmware; echo x > /proc/sys/kernel/hostname";
    let finished = host.run(&host.bundle().sh(script));
    assert_eq!(finished.text(), "");
    assert!(finished.errors().contains("Read-only file system"), "{}", finished.errors());
}

#[test]
fn limits_arrive_in_the_containers_cgroup() {
    let host = TestHost::new();
    let bundle = host.bundle().set(
        "/linux/resources",
        json!({
            "memory": { "limit": 67_108_864, "reservation": 33_554_432 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 },
            "pids": { "limit": 33 }
        }),
    );
    let files = &report(&host, &bundle)["cgroup_files"];
    assert_eq!(files["memory.max"], "67108864");
    assert_eq!(files["memory.low"], "33554432");
    assert_eq!(files["cpu.max"], "50000 100000");
    assert_eq!(files["pids.max"], "33");
}

#[test]
fn a_memory_limit_kills_the_one_who_exceeds_it() {
    let host = TestHost::new();
    let bundle = host
        .bundle()
        .set("/linux/resources", json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } }))
        .sh("dd if=/dev/zero of=/dev/null bs=64M count=1; exit 5");
    let finished = host.run(&bundle);
    // dd dies by SIGKILL, the shell goes on or dies with it: never 0.
    assert!(matches!(finished.code(), 5 | 137), "{finished:?}");
    assert!(!finished.errors().contains("1+0 records"), "{}", finished.errors());
}

#[test]
fn a_user_namespace_maps_ids() {
    let host = TestHost::new();
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let bundle = host
        .bundle()
        .push("/linux/namespaces", json!({ "type": "user" }))
        .set("/linux/uidMappings", mapping.clone())
        .set("/linux/gidMappings", mapping);
    let seen = report(&host, &bundle);
    assert_eq!(seen["uid"], 0);
    let map: Vec<&str> = seen["uid_map"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
}

#[test]
fn oom_score_and_ulimits_and_sysctls_apply() {
    let host = TestHost::new();
    let bundle = host
        .bundle()
        .set("/process/oomScoreAdj", json!(321))
        .set("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 1, "hard": 2 }]))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "80" }))
        .sh("cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start; ulimit -c");
    let finished = host.run(&bundle);
    let text = finished.success();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["321", "80"]);
}

#[test]
fn a_capability_beyond_the_default_is_given_when_asked_for() {
    let host = TestHost::new();
    let caps = json!(["CAP_SYS_CHROOT", "CAP_NET_RAW"]);
    let bundle = host.bundle().set(
        "/process/capabilities",
        json!({ "bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps }),
    );
    let status = &report(&host, &bundle)["status"];
    for set in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status[set], "0000000000042000", "{set}");
    }
}
