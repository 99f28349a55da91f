//! create, start, state, kill, delete, list: what each does in each status.

use std::{
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use bulkhead_tests::host::{DEADLINE, TestHost};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::pod::sharing;

#[test]
fn a_container_goes_from_created_to_running_to_stopped() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "linger"]));
    let state = web.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], web.id.as_str());
    assert_eq!(state["pid"], web.pid().as_raw());
    assert!(state["ociVersion"].is_string() && state["bundle"].is_string());
    web.start();
    web.until_stdout("ready");
    assert_eq!(web.status(), "running");
    web.kill("KILL");
    assert_eq!(web.wait(), 137);
    web.until_status("stopped", DEADLINE);
    web.delete();
    host.output(["state", &web.id]).failure(1, &["does not exist"]);
}

#[test]
fn nothing_of_the_program_runs_before_start() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().sh("echo started; exit 9"));
    assert_eq!(web.stdout(), "");
    web.start();
    assert_eq!(web.wait(), 9);
    assert_eq!(web.stdout(), "started\n");
    web.delete();
}

#[test]
fn a_container_killed_before_start_reports_the_signal_and_leaves_nothing_behind() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["sleep", "60"]));
    web.kill("KILL");
    assert_eq!(web.wait(), 137);
    web.delete();
}

#[test]
fn signals_reach_the_process_by_number_name_and_long_name() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "trap"]));
    web.start();
    web.until_stdout("ready");
    for (signal, name) in [("USR1", "SIGUSR1"), ("SIGHUP", "SIGHUP"), ("12", "SIGUSR2")] {
        web.kill(signal);
        web.until_stdout(name);
    }
    web.kill("TERM");
    assert_eq!(web.wait(), 0);
    web.delete();
}

#[test]
fn a_signal_to_the_host_pid_reaches_the_process() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "trap"]));
    web.start();
    web.until_stdout("ready");
    nix::sys::signal::kill(web.pid(), nix::sys::signal::Signal::SIGUSR1).unwrap();
    web.until_stdout("SIGUSR1");
    nix::sys::signal::kill(web.pid(), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(web.wait(), 0);
    web.delete();
}

#[test]
fn commands_in_the_wrong_status_are_refused_in_words_that_callers_know() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "linger"]));
    web.start();
    web.command("start", [""; 0]).failure(1, &["start", "running"]);
    web.command("delete", [""; 0]).failure(1, &["running"]);
    web.kill("KILL");
    web.wait();
    web.until_status("stopped", DEADLINE);
    web.command("start", [""; 0]).failure(1, &["stopped"]);
    web.command("kill", ["TERM"]).failure(1, &["container not running"]);
    web.command("kill", ["--all", "KILL"]).success();
    web.exec(["true"]).failure(255, &["container not running"]);
    web.delete();
    host.output(["delete", &web.id]).failure(1, &["does not exist"]);
    host.output(["delete", "--force", &web.id]).success();
}

#[test]
fn a_running_container_is_deleted_by_force_only() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "linger"]));
    web.start();
    web.delete_force();
}

#[test]
fn an_id_that_is_taken_is_refused_and_the_first_container_stays() {
    let host = TestHost::new();
    let bundle = host.bundle().args(["probe", "linger"]);
    let web = host.create("web", &bundle);
    host.output(["create", "--bundle", bundle.dir().to_str().unwrap(), &web.id]).failure(1, &["exists"]);
    assert_eq!(web.status(), "created");
    web.delete_force();
}

#[test]
fn list_and_ps_show_what_is_there() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "linger"]));
    web.start();
    web.until_stdout("ready");
    assert_eq!(host.output(["list", "-q"]).success(), format!("{}\n", web.id));
    let list: serde_json::Value =
        serde_json::from_str(&host.output(["list", "-f", "json"]).success()).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&web.id.as_str().into(), &"running".into()));
    assert!(host.output(["ps", &web.id]).success().contains("probe linger"));
    let pids: Vec<u32> = serde_json::from_str(&host.output(["ps", "-f", "json", &web.id]).success()).unwrap();
    assert_eq!(pids.len(), 1);
    web.delete_force();
    assert_eq!(host.output(["list", "-q"]).success(), "");
}

#[test]
fn five_containers_one_after_another_leave_no_trace() {
    let host = TestHost::new();
    for _ in 0..5 {
        lives_and_ends(&host, "one");
    }
    host.assert_no_trace();
}

#[test]
fn eight_containers_at_once_leave_no_trace() {
    let host = TestHost::new();
    thread::scope(|scope| {
        for number in 0..8 {
            let host = &host;
            scope.spawn(move || lives_and_ends(host, &format!("many{number}")));
        }
    });
    host.assert_no_trace();
}

fn lives_and_ends(host: &TestHost, name: &str) {
    let container = host.create(name, &host.bundle().args(["true"]));
    container.start();
    assert_eq!(container.wait(), 0);
    container.delete();
}

#[test]
fn a_wait_for_the_exit_is_short() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "linger"]));
    web.start();
    web.kill("KILL");
    // The proxy must not outlive its process: podman stop gives it ten seconds.
    web.until_status("stopped", Duration::from_secs(10));
    web.delete();
}

#[test]
fn a_container_can_be_deleted_when_its_last_output_is_there() {
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["echo", "bye"]));
    web.start();
    web.until_stdout("bye");
    web.delete();
}

/// Runs a command that has the writing end of a pipe as a further descriptor, and waits for the end of the pipe.
fn lets_go_of_a_pipe(command: &mut Command) {
    const NUMBER: i32 = 9;
    let (mut reader, writer) = io::pipe().unwrap();
    let fd = writer.as_raw_fd();
    let inherit = move || {
        // SAFETY: one system call, allowed between fork and exec; `writer` is open until the command has ended.
        let done = unsafe { libc::dup2(fd, NUMBER) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(inherit) };
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    drop(writer);
    let patience = PollTimeout::try_from(DEADLINE).unwrap();
    let ended = poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], patience).unwrap();
    assert_eq!(ended, 1, "the pipe is still held after {command:?}");
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_descriptor_that_the_caller_had_open_by_chance_ends_with_the_command() {
    let host = TestHost::new();
    let web = host.id("web");
    let bundle = host.bundle().args(["probe", "linger"]);
    lets_go_of_a_pipe(host.bulkhead(["create", "--bundle"]).arg(bundle.write()).arg(&web));
    lets_go_of_a_pipe(&mut host.bulkhead(["start", &web]));
    lets_go_of_a_pipe(&mut host.bulkhead(["exec", "--detach", &web, "probe", "linger"]));
    let first = host.create("first", &host.bundle().args(["probe", "linger"]));
    let second = sharing(&host, &first, &["network"]).args(["probe", "linger"]);
    lets_go_of_a_pipe(
        host.bulkhead(["run", "--detach", "--bundle"]).arg(second.write()).arg(host.id("second")),
    );
    for id in [host.id("second"), first.id.clone(), web] {
        host.output(["delete", "--force", &id]).success();
    }
}

#[test]
fn a_descriptor_for_the_container_is_refused_by_its_number_and_kind() {
    let host = TestHost::new();
    let bundle = host.bundle().args(["true"]);
    let run = format!(
        "exec 3</dev/null; exec {} --root {} run --preserve-fds 1 --bundle {} {}",
        bulkhead_tests::host::stage().join("bin/bulkhead").display(),
        host.root().display(),
        bundle.write().display(),
        host.id("web"),
    );
    let refused = bulkhead_tests::host::finish(Command::new("bash").args(["-c", &run]), b"", DEADLINE);
    refused.failure(1, &["--preserve-fds=1: descriptor 3, a device, cannot be passed into a microVM"]);
    let activated = format!("export LISTEN_FDS=1 LISTEN_PID=$$; {}", run.replace("--preserve-fds 1", ""));
    let refused = bulkhead_tests::host::finish(Command::new("bash").args(["-c", &activated]), b"", DEADLINE);
    refused.failure(1, &["LISTEN_FDS=1: descriptor 3, a device, cannot be passed into a microVM"]);
}
