//! What podman and docker must both get from Bulkhead.

use std::fs;

use bulkhead_tests::host::{DEADLINE, Engine, Terminal};
use serde_json::{Value, json};

pub(crate) fn flags_are_what_the_container_sees(engine: &impl Engine) {
    let volume = engine.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let profile = engine.dir().join("seccomp.json");
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" });
    fs::write(&profile, json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }).to_string())
        .unwrap();
    let finished = engine.output([
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
    assert_eq!(finished.errors().lines().last(), Some("refused"));
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

pub(crate) fn gives_a_shell_on_a_terminal(engine: &impl Engine) {
    let mut command = engine.command(["run", "--rm", "-it", "--network=none", "probe", "sh"]);
    let mut terminal = Terminal::spawn(&mut command, 80, 24);
    // docker tells the size after the start. What is typed is echoed, so it must not be what is expected.
    let sized = "until [ \"$(stty size)\" = \"24 $((79+1))\" ]; do busybox sleep 0.1; done; stty size";
    terminal.send(&format!("echo hello-$((20+3)); {sized}\n"));
    terminal.expect("hello-23", DEADLINE);
    terminal.expect("24 80", DEADLINE);
    terminal.send("exit 4\n");
    assert_eq!(terminal.wait(DEADLINE).code(), Some(4));
}

/// CAP_CHOWN to CAP_AUDIT_READ.
const ALL_CAPABILITIES: u64 = (1 << 38) - 1;

pub(crate) fn gives_a_privileged_container_what_the_guest_has(engine: &impl Engine) {
    let script = "busybox mount -t tmpfs tmpfs /tmp && mkdir /sys/fs/cgroup/below && echo 1 >/proc/sys/net/ipv4/ip_forward &&
        echo x >/dev/null && echo x >/dev/nothing && busybox test -c /dev/fuse && ! busybox test -e /dev/kvm && probe report";
    let run = ["run", "--rm", "--network=none", "--privileged", "--device=/dev/null:/dev/nothing"];
    let finished = engine.output(run.iter().chain(&["probe", "sh", "-c", script]));
    let seen: Value = serde_json::from_str(&finished.success()).unwrap();
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        let bits = u64::from_str_radix(seen["status"][set].as_str().unwrap(), 16).unwrap();
        // All that the older of the engines knows.
        assert_eq!(bits & ALL_CAPABILITIES, ALL_CAPABILITIES, "{set}: {bits:x}");
    }
    let mounts = seen["mounts"].as_array().unwrap();
    let of_sys = |line: &&Value| line.as_str().unwrap().split(' ').nth(4) == Some("/sys");
    let sys = mounts.iter().find(of_sys).unwrap().as_str().unwrap();
    assert!(sys.split(' ').nth(5).unwrap().starts_with("rw,"), "{sys}");
}
