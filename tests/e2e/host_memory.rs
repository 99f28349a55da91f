//! What a pod may take of the host's memory, and who goes first when that runs out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bulkhead_tests::host::{Container, DEADLINE, TestHost, process};
use serde_json::json;

fn running<'a>(host: &'a TestHost, name: &str, bundle: &bulkhead_tests::host::Bundle) -> Container<'a> {
    let container = host.create(name, bundle);
    container.start();
    container.until_stdout("ready");
    container
}

fn oom_score(pid: u32) -> i32 {
    fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
}

/// Of VMM, server and proxy.
fn oom_scores(id: &str, proxy: u32) -> [i32; 3] {
    let vmm = process("bulkhead-vmm", &[], id).unwrap();
    let server = process("bulkhead", &["sandbox-server"], id).unwrap();
    [vmm, server, proxy].map(oom_score)
}

fn pid(container: &Container<'_>) -> u32 {
    container.pid().as_raw().unsigned_abs()
}

#[test]
fn the_host_gives_up_a_container_when_its_oom_score_says_so() {
    let host = TestHost::new();
    let bundle =
        |score: i32| host.bundle().set("/process/oomScoreAdj", json!(score)).args(["probe", "linger"]);
    // Lower than what this test has, which takes a capability.
    let first = running(&host, "first", &bundle(-17));
    assert_eq!(oom_scores(&first.id, pid(&first)), [-17; 3]);
    let guest = first.exec(["cat", "/proc/1/oom_score_adj"]).success();
    assert_eq!(guest.trim(), "-17");

    // A container that shares the microVM raises what all of them stand and fall with, and cannot lower it.
    let joined = |score| {
        let network = format!("/proc/{}/ns/net", first.pid());
        bundle(score).set("/linux/namespaces/1/path", json!(network))
    };
    let second = running(&host, "second", &joined(321));
    assert_eq!(oom_scores(&first.id, pid(&second)), [321; 3]);
    assert_eq!(oom_score(pid(&first)), -17);
    second.delete_force();
    let third = running(&host, "third", &joined(5));
    assert_eq!(oom_scores(&first.id, pid(&third)), [321, 321, 5]);
    third.delete_force();
    first.delete_force();
    host.assert_no_trace();
}

#[test]
fn without_an_oom_score_all_keep_that_of_their_caller() {
    let host = TestHost::new();
    let id = host.id("heir");
    let pid_file = host.dir().join("heir.pid");
    let mut create = host.bulkhead(["create", "--bundle"]);
    create.arg(host.bundle().args(["probe", "linger"]).write()).arg("--pid-file").arg(&pid_file).arg(&id);
    let mut caller = Command::new("/bin/sh");
    caller.args(["-c", "echo 77 > /proc/self/oom_score_adj && exec \"$@\"", "sh"]).arg(create.get_program());
    caller.args(create.get_args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(caller.status().unwrap().success());
    let proxy = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(oom_scores(&id, proxy), [77; 3]);
    host.output(["delete", "--force", &id]).success();
    host.assert_no_trace();
}

/// A file of the pod's cgroup on the host.
fn on_host(container: &Container<'_>, file: &str) -> String {
    fs::read_to_string(cgroup(container).join(file)).unwrap().trim().to_owned()
}

fn cgroup(container: &Container<'_>) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    Path::new("/sys/fs/cgroup").join(text.trim().trim_start_matches("0::/"))
}

/// In MiB.
fn memory_max(container: &Container<'_>) -> u64 {
    on_host(container, "memory.max").parse::<u64>().unwrap() >> 20
}

#[test]
fn a_pod_is_bounded_on_the_host_by_its_machine_and_a_margin() {
    let host = TestHost::configured("max_memory_mib = 1024\nmax_vcpus = 2\n");
    let limited = |mib: u64| {
        let resources =
            json!({ "memory": { "limit": mib << 20 }, "cpu": { "quota": 50_000, "period": 100_000 } });
        host.bundle().set("/linux/resources", resources).args(["probe", "linger"])
    };
    let first = running(&host, "first", &limited(128));
    // docs/sizing.md: 64 MiB, 1/256 of the most, and 2.5 KiB for each of 512 files per MiB.
    let machine = 128 + 64 + 4;
    let margin = 64 + 4 + machine * 512 * 2560 / (1 << 20);
    let bounds = || (memory_max(&first), on_host(&first, "cpu.max"), on_host(&first, "pids.max"));
    assert_eq!(bounds(), (machine + margin, "300000 100000".into(), "512".into()));
    // All of it is far below that.
    assert!(on_host(&first, "memory.peak").parse::<u64>().unwrap() >> 20 < machine + margin / 4);

    first.command("update", ["--memory=256m", "--cpu-quota=150000"]).success();
    let larger = 256 + 64 + 8;
    assert_eq!(bounds(), (larger + margin, "400000 100000".into(), "512".into()));
    // The guest gives memory back when it can, so that stays allowed.
    first.command("update", ["--memory=128m", "--cpu-quota=50000"]).success();
    assert_eq!(bounds(), (larger + margin, "300000 100000".into(), "512".into()));

    // A container without a limit may fill volumes in the host's memory.
    let network = format!("/proc/{}/ns/net", first.pid());
    let second = host.bundle().set("/linux/namespaces/1/path", json!(network)).args(["probe", "linger"]);
    let second = running(&host, "second", &second);
    assert_eq!(memory_max(&first), 1024 + margin);
    second.delete_force();
    first.delete_force();
    host.assert_no_trace();
}

#[test]
fn what_the_caller_has_set_on_a_cgroup_stays() {
    let host = TestHost::new();
    let name = host.id("limited");
    let directory = Path::new("/sys/fs/cgroup").join(&name);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("memory.max"), "1073741824").unwrap();
    let bundle =
        host.bundle().set("/linux/cgroupsPath", json!(format!("/{name}/web"))).args(["probe", "linger"]);
    let web = running(&host, "web", &bundle);
    assert_eq!(fs::read_to_string(directory.join("memory.max")).unwrap(), "1073741824\n");
    web.delete_force();
    fs::remove_dir(&directory).unwrap();
}

#[test]
fn a_pod_that_is_killed_for_want_of_memory_says_so() {
    let host = TestHost::new();
    let web = running(&host, "web", &host.bundle().args(["probe", "linger"]));
    // Room for 16 MiB more, and a process of the guest that wants 128.
    let current: u64 = on_host(&web, "memory.current").parse().unwrap();
    fs::write(cgroup(&web).join("memory.max"), (current + (16 << 20)).to_string()).unwrap();
    web.exec(["probe", "hold", "128"]).failure(137, &["the host's OOM killer ended the VMM"]);
    assert_eq!(web.wait(), 137);
    assert!(web.stderr().contains("the host's OOM killer ended the VMM"), "{}", web.stderr());
    web.until_status("stopped", DEADLINE);
    web.delete_force();
    host.assert_no_trace();
}
