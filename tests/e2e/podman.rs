//! podman on Bulkhead: its own programs, with Bulkhead as their runtime.

use std::fs;

use bulkhead_tests::host::{DEADLINE, Podman, Terminal};
use serde_json::{Value, json};

#[test]
fn podmans_flags_are_what_the_container_sees() {
    let podman = Podman::new();
    let volume = podman.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let profile = podman.dir().join("seccomp.json");
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" });
    fs::write(&profile, json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }).to_string())
        .unwrap();
    let finished = podman.output([
        "run",
        "--rm",
        "--network=none",
        "--env=COLOR=blue",
        "--user=1000:1001",
        "--workdir=/tmp",
        "--hostname=wall",
        "--read-only",
        "--tmpfs=/scratch",
        &format!("--volume={}:/volume", volume.display()),
        "--memory=128m",
        "--cpus=1.5",
        "--pids-limit=77",
        "--ulimit=nofile=100:200",
        "--cap-drop=all",
        "--cap-add=NET_BIND_SERVICE",
        &format!("--security-opt=seccomp={}", profile.display()),
        "probe",
        "sh",
        "-c",
        "mkdir /scratch/dir 2>/dev/null || touch /scratch/refused && ls /scratch >&2; probe report",
    ]);
    let seen: Value = serde_json::from_str(&finished.success()).unwrap();
    assert_eq!(finished.errors().trim(), "refused");
    assert_eq!(seen["env"]["COLOR"], "blue");
    assert_eq!((&seen["uid"], &seen["gid"], &seen["cwd"]), (&json!(1000), &json!(1001), &json!("/tmp")));
    assert_eq!(seen["hostname"], "wall");
    assert_eq!(seen["interfaces"], json!(["lo"]));
    assert_eq!(seen["cgroup_files"]["memory.max"], "134217728");
    assert_eq!(seen["cgroup_files"]["cpu.max"], "150000 100000");
    assert_eq!(seen["cgroup_files"]["pids.max"], "77");
    assert_eq!(seen["status"]["CapBnd"], "0000000000000400");
    assert_eq!(seen["status"]["Seccomp"], "2");
    let mounts = seen["mounts"].as_array().unwrap();
    for (path, options) in [("/", "ro,"), ("/scratch", "rw,"), ("/volume", "rw,")] {
        let of_path = |line: &&Value| line.as_str().unwrap().split(' ').nth(4) == Some(path);
        let line = mounts.iter().rev().find(of_path).unwrap_or_else(|| panic!("{path}: {mounts:?}"));
        assert!(line.as_str().unwrap().split(' ').nth(5).unwrap().starts_with(options), "{line}");
    }
}

#[test]
fn podman_gives_a_shell_on_a_terminal() {
    let podman = Podman::new();
    let mut command = podman.command(["run", "--rm", "-it", "--network=none", "probe", "sh"]);
    let mut terminal = Terminal::spawn(&mut command, 80, 24);
    terminal.send("echo hello-$((20+3)); stty size\n");
    terminal.expect("hello-23", DEADLINE);
    terminal.expect("24 80", DEADLINE);
    terminal.send("exit 4\n");
    assert_eq!(terminal.wait(DEADLINE).code(), Some(4));
}

#[test]
fn podman_tells_what_it_cannot_have() {
    let podman = Podman::new();
    let run = |args: &[&str], code, words: &[&str]| {
        podman.output([&["run", "--rm"], args].concat()).failure(code, words);
    };
    run(&["--network=none", "probe", "/no/such"], 127, &["no such file or directory"]);
    run(&["--network=none", "probe", "/etc/passwd"], 126, &["permission denied"]);
    run(&["--network=host", "probe", "true"], 126, &["linux.namespaces", "host"]);
    run(&["--network=none", "--device=/dev/kvm", "probe", "true"], 126, &["linux.devices[0]"]);
}

#[test]
fn podman_cp_reaches_the_container_and_nothing_else() {
    let podman = Podman::new();
    let volume = podman.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let word = podman.dir().join("word");
    fs::write(&word, "copied").unwrap();
    let word = word.display().to_string();
    let mount = format!("--volume={}:/volume", volume.display());
    let run =
        ["run", "-d", "--name=cp", "--network=none", "--tmpfs=/scratch", &mount, "probe", "sleep", "10000"];
    podman.output(run).success();
    // To a place that the host has as well.
    podman.output(["exec", "cp", "ln", "-s", "/etc", "/volume/link"]).success();
    for place in ["cp:/etc/word", "cp:/volume/word", "cp:/volume/link/linked"] {
        podman.output(["cp", &word, place]).success();
    }
    let show = "cat /etc/word /volume/word /etc/linked; ls /scratch";
    assert_eq!(podman.output(["exec", "cp", "sh", "-c", show]).success(), "copiedcopiedcopied");
    assert_eq!(fs::read_to_string(volume.join("word")).unwrap(), "copied");
    podman.output(["cp", &word, "cp:/scratch/word"]).failure(125, &["read-only file system"]);
    assert!(!fs::exists("/etc/word").unwrap() && !fs::exists("/etc/linked").unwrap());
}

#[test]
fn containers_of_a_podman_network_find_each_other_by_name() {
    let podman = Podman::new();
    podman.output(["network", "create", "lan"]).success();
    let script = "mkdir /www; echo found >/www/index.html; exec busybox httpd -f -h /www";
    podman.output(["run", "-d", "--name=server", "--network=lan", "probe", "sh", "-c", script]).success();
    let script = "until busybox wget -q -O - http://server/; do busybox sleep 1; done";
    let client = podman.output(["run", "--rm", "--network=lan", "probe", "sh", "-c", script]);
    assert_eq!(client.success(), "found\n");
}
