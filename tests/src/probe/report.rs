//! What a container sees of itself, as JSON: read from /proc, /dev and system calls, nothing interpreted.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use nix::{
    sys::stat::{Mode, major, minor, umask},
    unistd::{getgid, getgroups, getuid},
};
use serde_json::{Value, json};

use super::calls;

/// cgroup2 files of the container's own group, seen at its mount.
const CGROUP_FILES: [&str; 7] =
    ["memory.max", "memory.low", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "cpu.idle"];

pub fn report() -> Value {
    let mask = umask(Mode::empty());
    umask(mask);
    let system = nix::sys::utsname::uname().ok();
    let name = |pick: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        system.as_ref().map(|system| pick(system).to_string_lossy().into_owned())
    };
    json!({
        "args": env::args().collect::<Vec<_>>(),
        "cgroup": read("/proc/self/cgroup"),
        "cgroup_files": CGROUP_FILES.iter().map(|file| (*file, read(&format!("/sys/fs/cgroup/{file}")))).collect::<BTreeMap<_, _>>(),
        "cwd": env::current_dir().ok(),
        "devices": devices(),
        "domainname": read("/proc/sys/kernel/domainname"),
        "env": env::vars().collect::<BTreeMap<_, _>>(),
        "fds": fds(),
        "gid": getgid().as_raw(),
        "groups": getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect::<Vec<_>>(),
        "hostname": name(|system| system.nodename()),
        "interfaces": names("/sys/class/net"),
        "io_priority": calls::io_priority(),
        "kernel": name(|system| system.release()),
        "limits": lines("/proc/self/limits"),
        "memory_policy": calls::memory_policy(),
        "mounts": lines("/proc/self/mountinfo"),
        "namespaces": namespaces(),
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "personality": calls::personality(),
        "pid": std::process::id(),
        "processes": names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).count(),
        "scheduler": calls::scheduler(),
        "status": status(),
        "time_offsets": read("/proc/self/timens_offsets"),
        "uid": getuid().as_raw(),
        "uid_map": read("/proc/self/uid_map"),
        "gid_map": read("/proc/self/gid_map"),
        "umask": mask.bits(),
        "uptime": read("/proc/uptime"),
    })
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn lines(path: &str) -> Vec<String> {
    read(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `/proc/self/status` by key: capability sets, NoNewPrivs, Seccomp and the like.
fn status() -> BTreeMap<String, String> {
    lines("/proc/self/status")
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

fn namespaces() -> BTreeMap<String, String> {
    names("/proc/self/ns")
        .into_iter()
        .filter_map(|name| {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
            Some((name, link.to_string_lossy().into_owned()))
        })
        .collect()
}

/// What is open, without the descriptor that reads the directory.
fn fds() -> Vec<String> {
    let own = |name: &String| {
        fs::read_link(format!("/proc/self/fd/{name}")).is_ok_and(|target| !target.ends_with("fd"))
    };
    names("/proc/self/fd").into_iter().filter(own).collect()
}

/// `/dev`: type, numbers and mode of nodes, targets of links.
fn devices() -> BTreeMap<String, String> {
    names("/dev")
        .into_iter()
        .filter_map(|name| {
            let path = format!("/dev/{name}");
            let meta = fs::symlink_metadata(&path).ok()?;
            let kind = meta.file_type();
            let text = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).ok()?.display())
            } else if kind.is_char_device() || kind.is_block_device() {
                let letter = if kind.is_char_device() { 'c' } else { 'b' };
                format!("{letter} {}:{} {:o}", major(meta.rdev()), minor(meta.rdev()), meta.mode() & 0o7777)
            } else {
                "other".to_owned()
            };
            Some((name, text))
        })
        .collect()
}
