//! pause, resume, update, events: what a running container's guest does when it is told.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
};

use bulkhead_tests::host::{Container, DEADLINE, TestHost, finish, until};
use serde_json::{Value, json};

use crate::pod::sharing;

fn running<'host>(host: &'host TestHost, args: &[&str]) -> Container<'host> {
    let container = host.create("web", &host.bundle().args(args));
    container.start();
    container.until_stdout("ready");
    container
}

#[test]
fn a_paused_container_stands_still_until_it_resumes() {
    let host = TestHost::new();
    let web = running(&host, &["probe", "trap"]);
    web.command("resume", [""; 0]).failure(1, &["container not paused"]);
    web.command("pause", [""; 0]).success();
    assert_eq!(web.status(), "paused");
    web.command("pause", [""; 0]).failure(1, &["container not running"]);
    web.exec(["true"]).failure(255, &["cannot exec in a paused container"]);
    web.command("delete", [""; 0]).failure(1, &["paused"]);
    // A signal waits for the process.
    web.kill("USR1");
    // So does an exec that was told to.
    let mut patient = host.bulkhead(["exec", "--ignore-paused", &web.id, "echo", "late"]);
    let patient = patient.stdout(Stdio::piped()).spawn().unwrap();
    web.command("resume", [""; 0]).success();
    assert_eq!(web.status(), "running");
    web.until_stdout("SIGUSR1");
    let late = patient.wait_with_output().unwrap();
    assert_eq!((late.status.code(), late.stdout.as_slice()), (Some(0), b"late\n".as_slice()));
    web.delete_force();
}

#[test]
fn a_paused_container_can_be_killed() {
    let host = TestHost::new();
    let web = running(&host, &["probe", "linger"]);
    web.command("pause", [""; 0]).success();
    web.kill("KILL");
    assert_eq!(web.wait(), 137);
    web.until_status("stopped", DEADLINE);
    web.command("pause", [""; 0]).failure(1, &["container not running"]);
    web.delete();
}

#[test]
fn a_container_is_paused_only_while_it_runs() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "linger"]));
    web.command("pause", [""; 0]).failure(1, &["container not running"]);
    web.delete_force();
}

#[test]
fn an_update_changes_what_is_given_from_flags_a_file_or_standard_input() {
    let host = TestHost::new();
    let web = running(&host, &["probe", "linger"]);
    let limit = |file: &str| web.exec(["cat", &format!("/sys/fs/cgroup/{file}")]).success();
    let update = |flags: &[&str], input: &[u8]| {
        let mut command = host.bulkhead(["update"]);
        finish(command.args(flags).arg(&web.id), input, DEADLINE)
    };
    update(&["--memory=64m", "--pids-limit", "50", "--cpu-quota=50000", "--cpu-period=100000"], b"")
        .success();
    assert_eq!((limit("memory.max"), limit("pids.max")), ("67108864\n".into(), "50\n".into()));
    assert_eq!(limit("cpu.max"), "50000 100000\n");
    update(&["--cpu-period=200000"], b"").success();
    assert_eq!(limit("cpu.max"), "50000 200000\n");
    update(&["--resources", "-"], br#"{"memory":{"limit":134217728}}"#).success();
    assert_eq!((limit("memory.max"), limit("pids.max")), ("134217728\n".into(), "50\n".into()));
    let file = host.dir().join("resources.json");
    std::fs::write(&file, json!({"pids": {"limit": -1}}).to_string()).unwrap();
    update(&["-r", file.to_str().unwrap()], b"").success();
    assert_eq!(limit("pids.max"), "max\n");
    web.delete_force();
}

#[test]
fn an_update_that_fails_changes_nothing() {
    let host = TestHost::new();
    let web = running(&host, &["probe", "linger"]);
    let update = |json: Value| {
        finish(&mut host.bulkhead(["update", "-r", "-", &web.id]), json.to_string().as_bytes(), DEADLINE)
    };
    update(json!({"memory": {"limit": 67_108_864_u32}})).success();
    // The guest's kernel refuses the last of the two.
    let refused = json!({"memory": {"limit": 134_217_728_u32}, "unified": {"memory.high": "nonsense"}});
    update(refused).failure(1, &["set limit memory.high to nonsense"]);
    assert_eq!(web.exec(["cat", "/sys/fs/cgroup/memory.max"]).success(), "67108864\n");
    update(json!({"memory": {"swap": 5}})).failure(1, &["linux.resources.memory.swap"]);
    update(json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}))
        .failure(1, &["checkBeforeUpdate is set"]);
    web.delete_force();
}

#[test]
fn statistics_are_those_of_the_guests_cgroup() {
    let host = TestHost::new();
    let bundle =
        host.bundle().args(["probe", "linger"]).set("/linux/resources/memory/limit", json!(67_108_864));
    let web = host.create("web", &bundle.set("/linux/resources/pids/limit", json!(77)));
    web.start();
    web.until_stdout("ready");
    let event: Value = serde_json::from_str(&host.output(["events", "--stats", &web.id]).success()).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(web.id)));
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(data["pids"], json!({"current": 1, "limit": 77}));
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(data["network_interfaces"][0]["Name"], "lo");
    web.kill("KILL");
    web.wait();
    web.until_status("stopped", DEADLINE);
    host.output(["events", "--stats", &web.id]).failure(1, &["container not running"]);
    web.delete();
}

#[test]
fn the_stream_of_events_tells_of_a_kill_for_memory_and_ends_with_the_container() {
    let host = TestHost::new();
    // One process: of several, the kernel may kill more than one.
    let bundle = host
        .bundle()
        .args(["probe", "hold", "64"])
        .set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}));
    let web = host.create("web", &bundle);
    let lines = host.dir().join("events");
    let mut events = host.bulkhead(["events", "--interval", "1h", &web.id]);
    let mut events = events.stdout(File::create(&lines).unwrap()).spawn().unwrap();
    let said = || std::fs::read_to_string(&lines).unwrap();
    until("the first statistics", DEADLINE, || said().contains(r#""type":"stats""#).then_some(()));
    web.start();
    web.wait();
    let status = until("the stream ends", DEADLINE, || events.try_wait().unwrap());
    assert!(status.success() && said().contains(r#""type":"oom""#), "{status} {}", said());
    // Engines look at the host's cgroup, once the exit is known. The processes are where they were.
    let cgroup = Path::new("/sys/fs/cgroup/bulkhead").join(&web.id);
    assert_eq!(event(&cgroup, "oom_kill"), 1);
    assert!(event(&cgroup, "oom") >= 1);
    assert!(fs::read_dir(&cgroup).unwrap().all(|entry| !entry.unwrap().file_type().unwrap().is_dir()));
    web.delete();
}

/// A counter of the `memory.events` of a cgroup on the host.
fn event(cgroup: &Path, name: &str) -> u64 {
    let events = fs::read_to_string(cgroup.join("memory.events")).unwrap();
    let counter = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    events.lines().find_map(counter).unwrap()
}

#[test]
fn each_kill_for_memory_of_a_container_that_goes_on_is_counted_on_the_host() {
    let host = TestHost::new();
    let limit = json!({"limit": 33_554_432, "swap": 33_554_432});
    let first = host.create(
        "first",
        &host.bundle().args(["probe", "linger"]).set("/linux/resources/memory", limit.clone()),
    );
    first.start();
    first.until_stdout("ready");
    // Its proxy alone is in the cgroup of the second.
    let bundle = sharing(&host, &first, &["network"]).args(["probe", "linger"]);
    let second = host.create("second", &bundle.set("/linux/resources/memory", limit));
    second.start();
    second.until_stdout("ready");
    let cgroup = |web: &Container<'_>| Path::new("/sys/fs/cgroup/bulkhead").join(&web.id);
    let counted = || [&first, &second].map(|web| event(&cgroup(web), "oom_kill"));
    for (index, web) in [&first, &second].into_iter().enumerate() {
        web.exec(["probe", "exit", "0"]).success();
        assert_eq!(counted()[index], 0);
        web.exec(["probe", "hold", "50"]).exited(137);
        until("the host counts it", DEADLINE, || (counted()[index] == 1).then_some(()));
        until("the processes are back", DEADLINE, || {
            let procs = fs::read_to_string(cgroup(web).join("cgroup.procs")).unwrap();
            procs.lines().any(|pid| pid == web.pid().to_string()).then_some(())
        });
    }
    // A kill by hand is none.
    second.kill("KILL");
    assert_eq!(second.wait(), 137);
    assert_eq!(counted(), [1, 1]);
    second.delete();
    first.delete_force();
}

#[test]
fn checkpoint_and_restore_are_refused() {
    let host = TestHost::new();
    host.output(["checkpoint", "web"]).failure(1, &["checkpoint is not supported"]);
    host.output(["restore", "--image-path", "/x", "web"]).failure(1, &["restore is not supported"]);
}

#[test]
fn an_exec_may_run_in_a_cgroup_below_the_containers() {
    let host = TestHost::new();
    let cgroup = json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" }]);
    let web =
        host.create("web", &host.bundle().args(["probe", "linger"]).set("/mounts/6", cgroup[0].clone()));
    web.start();
    web.until_stdout("ready");
    web.exec(["mkdir", "/sys/fs/cgroup/sub"]).success();
    let exec = |cgroup: &str| {
        let mut command = host.bulkhead(["exec", "--cgroup", cgroup, &web.id, "cat", "/proc/self/cgroup"]);
        finish(&mut command, b"", DEADLINE)
    };
    assert_eq!(exec("sub").success(), "0::/sub\n");
    assert_eq!(exec("/").success(), "0::/\n");
    exec("missing").failure(255, &["open cgroup missing"]);
    exec("../..").failure(255, &["open cgroup ../.."]);
    exec("memory:sub").failure(255, &["cgroup2 alone"]);
    web.delete_force();
}

#[test]
fn doctor_finds_a_machine_that_runs_microvms_and_says_so_as_json() {
    let host = TestHost::new();
    let text = finish(&mut host.bulkhead(["doctor", "--json"]), b"", DEADLINE).success();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["failed"], 0);
    let findings = report["findings"].as_array().unwrap();
    let verdict = |subject: &str| findings.iter().find(|finding| finding["subject"] == subject).unwrap();
    assert_eq!(verdict("KVM")["verdict"], "ok");
    assert!(verdict("KVM")["detail"].as_str().unwrap().contains("with interrupts and doorbells"));
    for subject in ["SMT", "vulnerabilities", "microcode", "page merging", "swap", "clock", "VM creation"] {
        assert!(verdict(subject)["detail"].is_string());
    }
    // The same for people, a line each and its hint.
    let lines = finish(&mut host.bulkhead(["doctor"]), b"", DEADLINE).success();
    let spoken = lines.lines().filter(|line| !line.trim_start().starts_with("hint: ")).count();
    assert_eq!(spoken, findings.len());
}
