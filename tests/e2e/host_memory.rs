//! What a pod may take of the host's memory, and who goes first when that runs out.

use std::{
    fs,
    process::{Command, Stdio},
};

use bulkhead_tests::host::{Container, TestHost, process};
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
