//! What a container sees of itself, as JSON: read from /proc, /dev and system calls, nothing interpreted.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use nix::{
    errno::Errno,
    sys::stat::{Mode, major, minor, umask},
    unistd::{AccessFlags, eaccess, getgid, getgroups, getuid},
};
use serde_json::{Value, json};

use super::calls;

/// cgroup2 files of the container's own group, seen at its mount.
const CGROUP_FILES: [&str; 19] = [
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "hugetlb.2MB.max",
    "hugetlb.2MB.rsvd.max",
    "io.max",
    "io.weight",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.oom.group",
    "memory.swap.max",
    "pids.max",
    "cgroup.max.depth",
    "cgroup.max.descendants",
];

/// Settings that belong to a namespace.
const SYSCTLS: [&str; 14] = [
    "fs/mqueue/msg_max",
    "fs/mqueue/queues_max",
    "kernel/domainname",
    "kernel/hostname",
    "kernel/msgmax",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmmni",
    "net/core/somaxconn",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "net/ipv6/conf/all/disable_ipv6",
];

/// What runtimes mask, make read-only or mount read-only, and one file that stays open to writing.
const GUARDED: [&str; 16] = [
    "/dev/null",
    "/proc/acpi",
    "/proc/bus",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/scsi",
    "/proc/self/comm",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/sys/firmware",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/kernel/uevent_seqnum",
    "/",
];

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
        "calls": calls::allowed(),
        "cgroup_files": by_name(&CGROUP_FILES, |file| read(&format!("/sys/fs/cgroup/{file}"))),
        "cwd": env::current_dir().ok(),
        "devices": devices(),
        "domainname": read("/proc/sys/kernel/domainname"),
        "env": env::vars().collect::<BTreeMap<_, _>>(),
        "environ": read("/proc/self/environ").map(|text| text.split('\0').map(str::to_owned).collect::<Vec<_>>()),
        "exe": fs::read_link("/proc/self/exe").ok(),
        "fds": fds(),
        "gid": getgid().as_raw(),
        "gid_map": read("/proc/self/gid_map"),
        "groups": getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect::<Vec<_>>(),
        "guarded": by_name(&GUARDED, guarded),
        "hostname": name(|system| system.nodename()),
        "interfaces": names("/sys/class/net"),
        "ipv6_addresses": lines("/proc/net/if_inet6"),
        "io_priority": calls::io_priority(),
        "kernel": name(|system| system.release()),
        "limits": lines("/proc/self/limits"),
        "memory_policy": calls::memory_policy(),
        "mounts": lines("/proc/self/mountinfo"),
        "namespaces": namespaces(),
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "personality": calls::personality(),
        "pid": std::process::id(),
        "places": places(),
        "processes": names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).count(),
        "scheduler": calls::scheduler(),
        "session": nix::unistd::getsid(None).map(nix::unistd::Pid::as_raw).ok(),
        "status": status(),
        "sysctls": by_name(&SYSCTLS, |name| read(&format!("/proc/sys/{name}"))),
        "time_offsets": read("/proc/self/timens_offsets"),
        "uid": getuid().as_raw(),
        "uid_map": read("/proc/self/uid_map"),
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

/// `/dev` and what is below it, by path: type, numbers, mode and owner of nodes, targets of links.
fn devices() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![String::new()];
    while let Some(dir) = left.pop() {
        for name in names(&format!("/dev/{dir}")) {
            let path = format!("{dir}{name}");
            let Ok(meta) = fs::symlink_metadata(format!("/dev/{path}")) else { continue };
            if meta.is_dir() {
                left.push(format!("{path}/"));
            }
            found.insert(path.clone(), node(&path, &meta));
        }
    }
    found
}

fn node(path: &str, meta: &fs::Metadata) -> String {
    let kind = meta.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(format!("/dev/{path}")).unwrap_or_default();
        return format!("-> {}", target.display());
    }
    let letter = match kind {
        _ if kind.is_char_device() => 'c',
        _ if kind.is_block_device() => 'b',
        _ if kind.is_fifo() => 'p',
        _ if kind.is_dir() => 'd',
        _ => '-',
    };
    let numbers = format!("{}:{}", major(meta.rdev()), minor(meta.rdev()));
    format!("{letter} {numbers} {:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid())
}

/// The mode and the owner of each mount's root, by its place.
fn places() -> BTreeMap<String, String> {
    let places = lines("/proc/self/mountinfo").into_iter().filter_map(|line| {
        let place = line.split(' ').nth(4)?.to_owned();
        let meta = fs::metadata(&place).ok()?;
        Some((place, format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid())))
    });
    places.collect()
}

/// What reading gives, without its content, and whether it may be written to.
fn guarded(path: &str) -> String {
    let errno = |error: std::io::Error| format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    let Ok(meta) = fs::metadata(path) else { return "missing".to_owned() };
    let shown = if meta.is_dir() {
        fs::read_dir(path).map(Iterator::count).map(|count| if count == 0 { "empty" } else { "entries" })
    } else {
        let read = fs::File::open(path).and_then(|mut file| file.read(&mut [0]));
        read.map(|count| if count == 0 { "empty" } else { "bytes" })
    };
    let shown = shown.map_or_else(errno, str::to_owned);
    let written =
        eaccess(path, AccessFlags::W_OK).map_or_else(|errno| format!("{errno:?}"), |()| "ok".to_owned());
    format!("read: {shown}, write: {written}")
}

fn by_name<T>(names: &[&str], look: impl Fn(&str) -> T) -> BTreeMap<String, T> {
    names.iter().map(|name| ((*name).to_owned(), look(name))).collect()
}
