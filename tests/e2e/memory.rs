//! The size of a microVM: made for its container's limits and wishes, and what is freed goes back to the host.

use bulkhead_tests::{
    bench::reclaim::{HELD_MIB, SHARE, measure},
    host::{Bundle, DEADLINE, Finished, TestHost, finish, process, until},
};
use serde_json::json;

/// Says the guest's memory in MiB, its CPUs and the container's own limit.
const LOOK: &str = "while read key value unit; do case $key in MemTotal:) echo $((value / 1024));; esac; done < /proc/meminfo
cat /sys/devices/system/cpu/online /sys/fs/cgroup/memory.max";

/// Guest memory in MiB, CPUs online, memory.max.
fn seen(finished: &Finished) -> (u64, String, String) {
    let text = finished.success();
    let lines: Vec<&str> = text.lines().collect();
    (lines[0].parse().unwrap(), lines[1].to_owned(), lines[2].to_owned())
}

/// Runs with a configuration of its own.
fn configured(host: &TestHost, config: &str, bundle: &Bundle) -> Finished {
    let file = host.dir().join("config.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = host.bulkhead(["--config"]);
    command.arg(&file).args(["run", "--bundle"]).arg(bundle.write()).arg(host.id("sized"));
    finish(&mut command, b"", DEADLINE)
}

#[test]
fn a_machine_is_made_for_the_limits_of_its_container() {
    let host = TestHost::new();
    let limit = 256_u64 << 20;
    let resources = json!({ "memory": { "limit": limit }, "cpu": { "quota": 150_000, "period": 100_000 } });
    let (memory, cpus, max) = seen(&host.run(&host.bundle().set("/linux/resources", resources).sh(LOOK)));
    // All of the limit can be used, and the machine is not much larger.
    assert!((256..340).contains(&memory), "{memory}");
    assert_eq!((cpus.as_str(), max), ("0-1", limit.to_string()));
}

#[test]
fn a_machine_for_a_small_limit_still_boots() {
    let host = TestHost::new();
    let resources = json!({ "memory": { "limit": 6 << 20 } });
    let bundle = host.bundle().set("/linux/resources", resources).sh("cat /sys/fs/cgroup/memory.max");
    assert_eq!(host.run(&bundle).success().trim(), (6 << 20).to_string());
}

#[test]
fn a_container_can_use_all_that_its_limit_allows() {
    let host = TestHost::new();
    let resources = json!({ "memory": { "limit": 128 << 20 } });
    let bundle = host.bundle().set("/linux/resources", resources).args(["probe", "hold", "120"]);
    let container = host.create("full", &bundle);
    container.start();
    container.until_stdout("held");
    container.kill("TERM");
    assert_eq!(container.wait(), 0, "{}", container.stderr());
    container.delete();
}

#[test]
fn an_update_of_the_limits_changes_the_machine_with_them() {
    let host = TestHost::new();
    let resources =
        json!({ "memory": { "limit": 64 << 20 }, "cpu": { "quota": 100_000, "period": 100_000 } });
    let bundle = host.bundle().set("/linux/resources", resources).args(["probe", "linger"]);
    let container = host.create("grows", &bundle);
    container.start();
    container.until_stdout("ready");
    let look = || seen(&container.exec(["sh", "-c", LOOK]));
    let (small, cpus, _) = look();
    assert!(small < 160 && cpus == "0", "{small} {cpus}");
    container.command("update", ["--memory=512m", "--cpu-quota=200000"]).success();
    let (large, cpus, max) = look();
    assert!(large - small >= 440, "{small} {large}");
    assert_eq!((cpus.as_str(), max), ("0-1", (512 << 20).to_string()));
    // What fails in the guest leaves the machine as it was.
    let failed = json!({ "memory": { "limit": 1_u64 << 30 }, "unified": { "memory.high": "nonsense" } });
    let mut command = host.bulkhead(["update", "-r", "-", &container.id]);
    finish(&mut command, failed.to_string().as_bytes(), DEADLINE).failure(1, &["memory.high"]);
    assert_eq!(look().2, (512 << 20).to_string());
    // CPUs are given back at once, memory as the guest can spare it.
    container.command("update", ["--memory=64m", "--cpu-quota=100000"]).success();
    assert_eq!((look().1.as_str(), look().2), ("0", (64 << 20).to_string()));
    until("the guest gives its memory back", DEADLINE, || (look().0 < large - 300).then_some(()));
    container.delete_force();
}

#[test]
fn the_specs_hardware_shapes_the_machine_within_the_operators_bounds() {
    let host = TestHost::new();
    let bundle = |hardware| host.bundle().set("/vm", json!({ "hwConfig": hardware })).sh(LOOK);
    let hardware = json!({ "memory": 200_u64 << 20, "vcpus": 2 });
    let (memory, cpus, max) = seen(&host.run(&bundle(hardware)));
    assert!((120..200).contains(&memory), "{memory}");
    assert_eq!((cpus.as_str(), max.as_str()), ("0-1", "max"));
    let refused = host.run(&bundle(json!({ "vcpus": 33 })));
    refused.failure(1, &["vm.hwConfig.vcpus: 33 vCPUs are not between 1 and "]);
    let refused = host.run(&host.bundle().set("/vm", json!({ "kernel": { "path": "/bin/sh" } })));
    refused.failure(1, &["vm.kernel.path is not supported: /bin/sh is not in allowed_kernels"]);
}

#[test]
fn annotations_shape_the_machine_where_the_operator_allows_them() {
    let host = TestHost::new();
    let annotations = json!({ "org.bulkhead.vm.memory-mib": "160", "org.bulkhead.vm.vcpus": "2" });
    let bundle = host.bundle().set("/annotations", annotations).sh(LOOK);
    host.run(&bundle).failure(1, &["annotations[\"org.bulkhead.vm.memory-mib\"] is not supported"]);
    let allowed = "allowed_annotations = ['org.bulkhead.vm.memory-mib', 'org.bulkhead.vm.vcpus']\n";
    let (memory, cpus, _) = seen(&configured(&host, allowed, &bundle));
    assert!((90..160).contains(&memory), "{memory}");
    assert_eq!(cpus, "0-1");
}

#[test]
fn memory_that_a_container_frees_is_back_with_the_host() {
    let host = TestHost::new();
    let bundle = host.bundle().args(["probe", "hold", &HELD_MIB.to_string()]);
    let container = host.create("freed", &bundle);
    let vmm = process("bulkhead-vmm", &[], &container.id).unwrap();
    let reclaimed = measure(&container, vmm, 512 << 10).unwrap();
    assert!(reclaimed.share >= SHARE);
    println!("{:.0} % back after {:?}", reclaimed.share * 100.0, reclaimed.took);
    container.kill("TERM");
    assert_eq!(container.wait(), 0);
    container.delete();
}
