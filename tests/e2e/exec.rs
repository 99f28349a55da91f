//! `bulkhead exec`: further processes in a container that is created or runs.

use std::{
    fs::{self, File},
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    time::Duration,
};

use bulkhead_tests::host::{Container, DEADLINE, Terminal, TestHost, finish, until};
use serde_json::{Value, json};

fn running(host: &TestHost) -> Container<'_> {
    let container = host.create("web", &host.bundle().args(["probe", "linger"]));
    container.start();
    container.until_stdout("ready");
    container
}

#[test]
fn exec_runs_in_the_container_and_passes_everything_through() {
    let host = TestHost::new();
    let web = running(&host);
    for code in [0, 1, 42, 255] {
        web.exec(["probe", "exit", &code.to_string()]).exited(code);
    }
    web.exec(["probe", "die", "SIGSEGV"]).exited(139);
    assert_eq!(web.exec(["hostname"]).success(), "bulkhead-test\n");
    let mut cat = host.bulkhead(["exec", &web.id, "cat"]);
    assert_eq!(finish(&mut cat, b"in and out", DEADLINE).success(), "in and out");
    // The same namespaces as the container's init, and pid 1 is that init.
    assert!(web.exec(["sh", "-c", "cat /proc/1/cmdline"]).success().starts_with("probe"));
    web.delete_force();
}

#[test]
fn exec_takes_environment_directory_and_user() {
    let host = TestHost::new();
    let web = running(&host);
    let mut command =
        host.bulkhead(["exec", "--env", "COLOR=red", "--cwd", "/tmp", "--user", "1000:1001", &web.id]);
    let finished = finish(command.args(["sh", "-c", "echo $COLOR $PWD; id -u; id -g"]), b"", DEADLINE);
    assert_eq!(finished.success(), "red /tmp\n1000\n1001\n");
    web.delete_force();
}

#[test]
fn a_missing_program_fails_at_once_in_the_known_words() {
    let host = TestHost::new();
    let web = running(&host);
    web.exec(["nosuch"]).failure(255, &["exec: \"nosuch\": executable file not found in $PATH"]);
    web.exec(["/no/such"]).failure(255, &["no such file or directory"]);
    web.exec(["/etc/passwd"]).failure(255, &["permission denied"]);
    web.delete_force();
}

#[test]
fn exec_on_a_terminal_is_a_terminal_and_follows_its_size() {
    let host = TestHost::new();
    let web = running(&host);
    let mut terminal = Terminal::spawn(host.bulkhead(["exec", "--tty", &web.id]).arg("sh"), 90, 30);
    terminal.send("tty; stty size; echo end-$((1+1))\n");
    terminal.expect("/dev/pts/", DEADLINE);
    terminal.expect("30 90", DEADLINE);
    terminal.expect("end-2", DEADLINE);
    terminal.resize(100, 40);
    // The shell is asked until the answer is the new size; what it said before is forgotten by then.
    terminal.send("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; echo resized-$((1+2))\n");
    terminal.expect("resized-3", DEADLINE);
    terminal.send("exit 7\n");
    assert_eq!(terminal.wait(DEADLINE).code(), Some(7));
    web.delete_force();
}

#[test]
fn a_detached_exec_leaves_a_process_to_wait_for() {
    let host = TestHost::new();
    let web = running(&host);
    let pid_file = host.dir().join("exec.pid");
    let mut command = host.bulkhead(["exec", "--detach", "--pid-file"]);
    command.arg(&pid_file).arg(&web.id).args(["sh", "-c", "exit 6"]);
    let null = || fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    assert!(command.stdout(null()).stderr(null()).status().unwrap().success());
    let pid = nix::unistd::Pid::from_raw(fs::read_to_string(&pid_file).unwrap().parse().unwrap());
    let status = until("the exec ends", DEADLINE, || {
        match nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).unwrap() {
            nix::sys::wait::WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    });
    assert_eq!(status, 6);
    web.delete_force();
}

#[test]
fn exec_ends_with_its_container() {
    let host = TestHost::new();
    let web = running(&host);
    let mut long = host.bulkhead(["exec", &web.id, "sleep", "1000"]).spawn().unwrap();
    until("the exec runs", DEADLINE, || {
        web.command("ps", [""; 0]).text().contains("sleep 1000").then_some(())
    });
    web.kill("KILL");
    assert_eq!(web.wait(), 137);
    let status = until("the exec ends", Duration::from_secs(30), || long.try_wait().unwrap());
    assert_eq!(status.code(), Some(137));
    web.delete();
}

/// What systemd and docker do in a container: they move all processes out of its own cgroup and pass controllers on.
const DELEGATE: &str = "cd /sys/fs/cgroup && mkdir init other other/below && echo 0 >init/cgroup.procs
    for name in memory pids io hugetlb; do echo +$name >cgroup.subtree_control; done
    echo +memory >other/cgroup.subtree_control; echo delegated; while true; do sleep 1000; done";

#[test]
fn exec_goes_on_in_a_container_that_has_not_started_or_manages_its_cgroup() {
    let host = TestHost::new();
    // The cgroup's mount, writable.
    let bundle = host.bundle().set("/mounts/6/options", json!(["nosuid", "noexec", "nodev"])).sh(DELEGATE);
    let web = host.create("web", &bundle);
    let own_cgroup = ["cat", "/proc/self/cgroup"];
    assert_eq!(web.exec(own_cgroup).success(), "0::/\n");
    assert_eq!(web.status(), "created");
    web.start();
    web.until_stdout("delegated");
    assert_eq!(web.exec(own_cgroup).success(), "0::/init\n");
    let exec = |flags: &[&str], argv: &[&str]| {
        finish(host.bulkhead(["exec"]).args(flags).arg(&web.id).args(argv), b"", DEADLINE).success()
    };
    assert_eq!(exec(&["--user", "1000:1000"], &["id", "-u"]), "1000\n");
    assert_eq!(exec(&["--cgroup", "other/below"], &own_cgroup), "0::/other/below\n");
    assert_eq!(exec(&["--cgroup", "other"], &own_cgroup), "0::/init\n");
    let script = "mkdir /sys/fs/cgroup/moved && echo 1 >/sys/fs/cgroup/moved/cgroup.procs";
    web.exec(["sh", "-c", script]).success();
    assert_eq!(web.exec(own_cgroup).success(), "0::/moved\n");
    // All else counts and reaches what is below.
    assert!(web.command("ps", [""; 0]).text().contains("sleep 1000"));
    finish(host.bulkhead(["update", "--pids-limit", "50"]).arg(&web.id), b"", DEADLINE).success();
    let event: Value = serde_json::from_str(&host.output(["events", "--stats", &web.id]).success()).unwrap();
    assert_eq!(event["data"]["pids"], json!({ "current": 2, "limit": 50 }));
    web.command("pause", [""; 0]).success();
    web.command("resume", [""; 0]).success();
    web.kill("KILL");
    assert_eq!(web.wait(), 137);
    web.until_status("stopped", DEADLINE);
    web.delete();
}

#[test]
fn streams_are_opened_by_name_whatever_they_are_on_the_host() {
    let host = TestHost::new();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let script = "echo out >/dev/stdout; echo err >/dev/stderr; exec probe linger";
    let bundle = host
        .bundle()
        .push("/linux/namespaces", json!({ "type": "user" }))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/process/user", json!({ "uid": 101, "gid": 101 }))
        .sh(script);
    let web = host.create("web", &bundle);
    web.start();
    web.until_stdout("ready");
    assert!(web.stdout().starts_with("out\n"), "{}", web.stdout());
    assert_eq!(web.stderr(), "err\n");
    let script = "cat /dev/stdin; echo out >/dev/stdout; echo err >/proc/self/fd/2; echo more >>/dev/fd/1";
    for user in ["0:0", "101:101"] {
        let exec = || -> Command {
            let mut command = host.bulkhead(["exec", "--user", user]);
            command.arg(&web.id).args(["sh", "-c", script]);
            command
        };
        let pipes = finish(&mut exec(), b"in\n", DEADLINE);
        assert_eq!((pipes.success(), pipes.errors()), ("in\nout\nmore\n".into(), "err\n".into()), "{user}");
        let null = || Stdio::null();
        assert!(exec().stdin(null()).stdout(null()).stderr(null()).status().unwrap().success(), "{user}");
        let path = host.dir().join("file");
        let file = File::create(&path).unwrap();
        let status = exec().stdin(null()).stdout(file.try_clone().unwrap()).stderr(file).status();
        assert!(status.unwrap().success(), "{user}");
        // Two streams, so in no order.
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err", "more", "out"], "{user}");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let status = exec().stdin(null()).stdout(theirs).stderr(null()).status();
        assert!(status.unwrap().success(), "{user}");
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out\nmore\n", "{user}");
        let script = "echo out-$((1+1)) >/dev/stdout; echo err-$((2+2)) >/dev/stderr; read line </dev/stdin; echo got-$line";
        let mut command = host.bulkhead(["exec", "--tty", "--user", user]);
        let mut terminal = Terminal::spawn(command.arg(&web.id).args(["sh", "-c", script]), 80, 24);
        terminal.expect("out-2\r\nerr-4\r\n", DEADLINE);
        terminal.send("word\n");
        terminal.expect("got-word\r\n", DEADLINE);
        assert_eq!(terminal.wait(DEADLINE).code(), Some(0));
    }
    web.delete_force();
}
