//! What a jailed VMM must look like from the host.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Pid;

/// CHOWN DAC_OVERRIDE FOWNER FSETID SETGID SETUID MKNOD SETFCAP.
const CAPABILITIES: &str = "00000000880000db";
const NONE: &str = "0000000000000000";

pub(crate) fn assert_closed(pid: Pid, share: &Path) {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let link = |process: &Path| fs::read_link(process.join("ns").join(namespace)).unwrap();
        assert_ne!(link(&process), link(Path::new("/proc/self")), "{namespace} namespace");
    }
    assert_threads(&process);
    assert_limits(&process);
    assert_mounts(&process, share);
    assert_descriptors(&process, share);
}

fn assert_threads(process: &Path) {
    let mut threads = Vec::new();
    for thread in fs::read_dir(process.join("task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.split(':').next() == Some(name)).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        let thread = field("Name");
        assert_eq!(field("NoNewPrivs"), "1", "{thread}");
        assert_eq!(field("Groups"), "", "{thread}");
        assert_eq!(field("CapInh").trim_start_matches('0'), "", "{thread}");
        assert_eq!(field("CapAmb").trim_start_matches('0'), "", "{thread}");
        assert_eq!(field("CapBnd"), CAPABILITIES, "{thread}");
        // Only those that serve files need any.
        let kept = if thread.starts_with("fs") { CAPABILITIES } else { NONE };
        assert_eq!((field("CapEff"), field("CapPrm")), (kept.into(), kept.into()), "{thread}");
        assert_eq!((field("Seccomp"), field("Seccomp_filters")), ("2".into(), "1".into()), "{thread}");
        threads.push(thread);
    }
    // Two devices serve files in the test that asks.
    threads.sort();
    let (waiting, others): (Vec<_>, Vec<_>) = threads.into_iter().partition(|name| name.starts_with("lock"));
    assert_eq!(waiting.len(), 2 * 16, "who wait for locks: {waiting:?}");
    let files = ["fs0", "fs0", "fs1", "fs1", "fs2", "fs2"];
    let disks = ["disk0", "disk1", "disk2", "disk3"];
    let expected = [&["bulkhead-vmm", "devices"][..], &disks, &files, &["vcpu0", "watch", "watch"]].concat();
    assert_eq!(others, expected);
}

fn assert_limits(process: &Path) {
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    for (name, hard) in [("Max core file size", "0"), ("Max locked memory", "0"), ("Max processes", "80")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(hard), "{name}");
    }
}

/// One mount tree, and it is the share's.
fn assert_mounts(process: &Path, share: &Path) {
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap();
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    assert_eq!(points, ["/"], "{mounts}");
    assert!(mounts.contains(share.file_name().unwrap().to_str().unwrap()), "{mounts}");
}

/// Nothing of the host is open but what was passed.
fn assert_descriptors(process: &Path, share: &Path) {
    for fd in fs::read_dir(process.join("fd")).unwrap() {
        let fd = fd.unwrap().path();
        let Ok(target) = fs::read_link(&fd) else { continue };
        let target = target.to_string_lossy().into_owned();
        let number: i32 = fd.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let expected = number <= 2
            || ["socket:", "pipe:", "anon_inode:", "/dev/kvm"].iter().any(|kind| target.starts_with(kind))
            || target.starts_with(share.to_str().unwrap())
            // The procfs that is mounted nowhere, and the share's root as the process sees it.
            || target.ends_with("/fd")
            || target == "/";
        assert!(expected, "descriptor {number} is {target}");
    }
    let proc = process.join("root/proc");
    assert!(!proc.exists(), "the jail has a /proc");
}
