//! `bulkhead run`: exit codes, signals, stdio, environment.

use std::process::Command;

use bulkhead_tests::{
    host::{DEADLINE, TestHost, finish},
    probe::bytes,
};

#[test]
fn exit_codes_and_deaths_by_signal_arrive_at_the_caller() {
    let host = TestHost::new();
    for code in [0, 1, 42, 255] {
        host.run(&host.bundle().args(["probe", "exit", &code.to_string()])).exited(code);
    }
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("SEGV", 139)] {
        // The shell is pid 1 and cannot be killed by itself: its child dies and it passes the code on.
        let bundle = host.bundle().args(["/bin/sh", "-c", &format!("sh -c 'kill -{signal} $$'; exit $?")]);
        host.run(&bundle).exited(code);
    }
}

#[test]
fn stdin_reaches_the_process_and_its_end_does_too() {
    let host = TestHost::new();
    let finished = host.run_with_input(&host.bundle().args(["cat"]), b"over the wall\n");
    assert_eq!(finished.success(), "over the wall\n");
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let host = TestHost::new();
    let finished = host.run(&host.bundle().sh("echo out; echo err >&2; exit 3"));
    assert_eq!(
        (finished.code(), finished.text().as_str(), finished.errors().as_str()),
        (3, "out\n", "err\n")
    );
}

#[test]
fn a_stream_of_64_mib_through_stdin_and_stdout_arrives_whole() {
    let host = TestHost::new();
    let input = bytes(7, 64 << 20);
    let finished = host.run_with_input(&host.bundle().args(["cat"]), &input);
    finished.exited(0);
    // assert_eq! would print 128 MiB.
    assert!(finished.stdout == input, "{} of {} bytes, or not the same", finished.stdout.len(), input.len());
}

#[test]
fn a_closed_stdout_is_a_broken_pipe_for_the_process() {
    let host = TestHost::new();
    let bundle = host.bundle().sh("yes; exit 0");
    let run = format!(
        "{} --root {} run --bundle {} {} | head -n 3",
        bulkhead_tests::host::stage().join("bin/bulkhead").display(),
        host.root().display(),
        bundle.write().display(),
        host.id("pipe")
    );
    let finished = finish(Command::new("sh").args(["-c", &run]), b"", DEADLINE);
    assert_eq!(finished.success(), "y\ny\ny\n");
    host.assert_no_trace();
}

#[test]
fn the_process_gets_its_environment_user_and_directory() {
    let host = TestHost::new();
    let bundle = host
        .bundle()
        .set("/process/env", serde_json::json!(["PATH=/bin", "COLOR=blue", "EMPTY="]))
        .set(
            "/process/user",
            serde_json::json!({ "uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o27 }),
        )
        .set("/process/cwd", serde_json::json!("/tmp"));
    let report: serde_json::Value = serde_json::from_str(&host.run(&bundle).success()).unwrap();
    assert_eq!(report["env"]["COLOR"], "blue");
    assert_eq!(report["env"]["EMPTY"], "");
    assert_eq!((&report["uid"], &report["gid"]), (&1000.into(), &1001.into()));
    assert_eq!(report["groups"], serde_json::json!([7, 8]));
    assert_eq!(report["umask"], 0o27);
    assert_eq!(report["cwd"], "/tmp");
}

#[test]
fn run_in_the_background_answers_when_the_container_runs() {
    let host = TestHost::new();
    let id = host.id("back");
    let bundle = host.bundle().args(["probe", "linger"]);
    let log = std::fs::File::create(host.dir().join("log")).unwrap();
    let status = host
        .bulkhead(["run", "--detach", "--bundle"])
        .arg(bundle.write())
        .arg(&id)
        .stdout(log)
        .status()
        .unwrap();
    assert!(status.success());
    let state: serde_json::Value = serde_json::from_str(&host.output(["state", &id]).success()).unwrap();
    assert_eq!(state["status"], "running");
    host.output(["delete", "--force", &id]).success();
    host.assert_no_trace();
}

#[test]
fn the_timeline_names_the_phases_of_the_start() {
    let host = TestHost::new();
    let file = host.dir().join("timeline");
    let mut command = host.bulkhead(["run", "--timeline"]);
    command.arg(&file).arg("--bundle").arg(host.bundle().args(["true"]).write()).arg(host.id("time"));
    finish(&mut command, b"", DEADLINE).success();
    let text = std::fs::read_to_string(file).unwrap();
    for phase in
        ["server-up", "vmm-spawned", "kernel-entered", "agent-up", "container-created", "process-started"]
    {
        assert!(text.contains(phase), "no {phase} in:\n{text}");
    }
}
