//! containerd starts Bulkhead by its shim: `ctr` as a client, and what happens when one of them dies.

use std::{fs, path::Path, process::Stdio, time::Duration};

use bulkhead_tests::host::{Containerd, DEADLINE, finish, process, shim_state, tour, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Nothing runs for the containers of this namespace of containerd's, and nothing of theirs is kept.
pub(crate) fn assert_nothing_is_left(namespace: &str) {
    until("the shims are gone", DEADLINE, || shim(namespace).is_none().then_some(()));
    let kept: Vec<_> = fs::read_dir(shim_state(namespace))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "@sandboxes")
        .collect();
    assert_eq!(kept, [""; 0]);
    let sandboxes = fs::read_dir(shim_state(namespace).join("@sandboxes")).into_iter().flatten().count();
    assert_eq!(sandboxes, 0);
    let sockets = fs::read_dir("/run/containerd/bulkhead/s").into_iter().flatten();
    let own =
        sockets.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(namespace));
    assert_eq!(own.count(), 0);
}

/// The pid of a shim for the containers of a namespace.
fn shim(namespace: &str) -> Option<u32> {
    process("bulkhead", &["-namespace", "serve"], namespace)
}

fn tasks(containerd: &Containerd) -> String {
    containerd.output(["task", "list"]).success()
}

/// A container that runs until it is killed.
fn started(containerd: &Containerd, id: &'static str) {
    containerd.output(containerd.run(&["--detach"], id, &["sleep", "1000"])).success();
    assert!(tasks(containerd).contains("RUNNING"));
}

fn removed(containerd: &Containerd, id: &str) {
    until("the task has stopped", DEADLINE, || tasks(containerd).contains("STOPPED").then_some(()));
    // The exit code is the task's.
    let _ = containerd.output(["task", "rm", id]);
    assert_eq!(tasks(containerd).lines().count(), 1);
    containerd.output(["container", "rm", id]).success();
}

#[test]
fn the_tour_of_the_page_goes_as_it_stands() {
    let places = "mkdir -p /var/lib/containerd && mount -t tmpfs tour /var/lib/containerd
        containerd >/run/containerd.log 2>&1 &
        until ctr version >/run/ctr.log 2>&1; do sleep 0.2; done
        trap 'ctr task ls --quiet | xargs -r -n 1 ctr task rm --force' EXIT";
    tour(include_str!("../../docs/containerd.md"), places, Duration::from_secs(400));
}

#[test]
fn ctr_runs_a_container_and_hears_of_all_that_happens() {
    runs_a_container_and_tells_of_all_that_happens(&Containerd::new());
}

pub(crate) fn runs_a_container_and_tells_of_all_that_happens(containerd: &Containerd) {
    let events = fs::File::create(containerd.dir().join("events")).unwrap();
    let mut listener = containerd.ctr(["events"]).stdout(events).stderr(Stdio::null()).spawn().unwrap();

    let script = "echo out; echo err >&2; cat; exit 7";
    let mut command = containerd.ctr(containerd.run(&["--rm"], "first", &["sh", "-c", script]));
    let finished = finish(&mut command, b"in\n", DEADLINE);
    finished.exited(7);
    assert_eq!((&*finished.text(), &*finished.errors()), ("out\nin\n", "err\n"));

    started(containerd, "second");
    let exec = containerd.output(["task", "exec", "--exec-id=e1", "second", "/bin/sh", "-c", "exit 3"]);
    exec.exited(3);
    let metrics = containerd.output(["task", "metrics", "second"]).success();
    assert!(
        metrics.lines().any(|line| line.starts_with("memory.usage ") && !line.ends_with(" 0")),
        "{metrics}"
    );
    containerd.output(["task", "pause", "second"]).success();
    assert!(tasks(containerd).contains("PAUSED"));
    containerd.output(["task", "resume", "second"]).success();
    // The host's ps finds what stands for it.
    let pids = containerd.output(["task", "ps", "second"]).success();
    let pid = pids.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(fs::metadata(format!("/proc/{pid}/ns/net")).is_ok());
    containerd.output(["task", "kill", "--signal=TERM", "second"]).success();
    containerd.output(["task", "kill", "--signal=KILL", "second"]).success();
    removed(containerd, "second");
    assert_nothing_is_left(&containerd.namespace());

    let topics = |id: &str| -> Vec<String> {
        let events = fs::read_to_string(containerd.dir().join("events")).unwrap();
        let of_task =
            |line: &&str| line.contains("/tasks/") && line.contains(&format!("\"container_id\":\"{id}\""));
        let topic = |line: &str| line.split(" /tasks/").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        events.lines().filter(of_task).map(topic).collect()
    };
    let all =
        ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"];
    let told = |id: &str| topics(id).last().is_some_and(|topic| topic == "delete").then_some(());
    until("the last event is told", DEADLINE, || told("second"));
    assert_eq!(topics("second"), all);
    assert_eq!(topics("first"), ["create", "start", "exit", "delete"]);
    listener.kill().unwrap();
    listener.wait().unwrap();
}

#[test]
fn a_container_outlives_its_containerd_and_not_its_shim() {
    outlives_its_containerd_and_not_its_shim(&mut Containerd::new());
}

pub(crate) fn outlives_its_containerd_and_not_its_shim(containerd: &mut Containerd) {
    started(containerd, "stays");
    containerd.restart();
    assert!(tasks(containerd).contains("RUNNING"));
    let exec = containerd.output(["task", "exec", "--exec-id=e1", "stays", "/bin/echo", "still here"]);
    assert_eq!(exec.success(), "still here\n");
    containerd.output(["task", "kill", "--signal=KILL", "stays"]).success();
    removed(containerd, "stays");
    assert_nothing_is_left(&containerd.namespace());

    started(containerd, "goes");
    let daemon = shim(&containerd.namespace()).unwrap();
    kill(Pid::from_raw(daemon.try_into().unwrap()), Signal::SIGKILL).unwrap();
    until("containerd has cleaned up", DEADLINE, || (tasks(containerd).lines().count() == 1).then_some(()));
    containerd.output(["container", "rm", "goes"]).success();
    until("the microVM is gone", DEADLINE, || {
        let left = fs::read_dir(containerd.state()).into_iter().flatten();
        (left.filter(|entry| entry.as_ref().unwrap().file_name() == "goes").count() == 0).then_some(())
    });
}

#[test]
fn what_cannot_be_made_leaves_nothing_and_says_why() {
    let containerd = Containerd::new();
    let failed = containerd.output(containerd.run(&["--rm"], "wrong", &["no-such-program"]));
    failed.exited(1);
    let said = failed.errors();
    assert!(said.contains("exec: \"no-such-program\": executable file not found in $PATH"), "{said}");
    // docker asks for a scope in this way alone.
    if !Path::new("/run/systemd/system").exists() {
        let scope = ["--rm", "--cgroup=system.slice:docker:wrong"];
        let failed = containerd.output(containerd.run(&scope, "wrong", &["true"]));
        failed.exited(1);
        let said = failed.errors();
        assert!(said.contains("--systemd-cgroup needs systemd"), "{said}");
    }
    assert_nothing_is_left(&containerd.namespace());
}
