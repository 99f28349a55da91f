//! Features of the host's kernel, read from /proc and /sys.

use std::{fs, path::Path};

use bulkhead_sys::chain;

use super::{Finding, user::may_use_vhost};
use crate::{
    network::{Loopback, VHOST},
    sandbox::cgroup,
};

/// mount_setattr(2) came with 5.12; below it the share cannot be made.
const KERNEL_LEAST: (u32, u32) = (5, 12);
/// KVM, virtio-fs and the jail are tried on this one and later.
const KERNEL_TRIED: (u32, u32) = (6, 1);
/// Linux's default for `fs.fanotify.max_user_groups`.
const FANOTIFY_GROUPS: u64 = 128;
/// KVM's worker for huge pages became a thread of the VMM (`vhost_task`) in 6.13, and in 6.12's stable releases.
const KVM_THREAD_IS_CHEAP: (u32, u32) = (6, 12);

pub(super) fn privileges() -> Finding {
    Finding::ok("privileges", "running as root")
}

pub(super) fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(super) fn kernel(release: &str) -> Finding {
    let seen = format!("Linux {release}");
    match version(release) {
        Some(version) if version < KERNEL_LEAST => {
            Finding::fail("host kernel", seen, "update the kernel to 5.12 or later, which has mount_setattr")
        }
        Some(version) if version < KERNEL_TRIED => {
            Finding::warn("host kernel", seen, "update the kernel: Bulkhead is tested on 6.1 and later")
        }
        _ => Finding::ok("host kernel", seen),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next().flatten()?, numbers.next().flatten()?))
}

/// The VMM's jail is a user namespace.
pub(super) fn user_namespaces(root: &Path) -> Finding {
    let subject = "user namespaces";
    let path = root.join("proc/sys/user/max_user_namespaces");
    let read = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match read {
        None => {
            Finding::fail(subject, "the kernel has no user namespaces", "use a kernel with CONFIG_USER_NS")
        }
        Some(0) => Finding::fail(subject, "the limit is 0", "raise the sysctl user.max_user_namespaces"),
        Some(most) => Finding::ok(subject, format!("up to {most}")),
    }
}

/// A mount of cgroup2: where, and its options.
struct Cgroup2 {
    path: String,
    favordynmods: bool,
}

fn cgroup2(root: &Path) -> Option<Cgroup2> {
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    // proc_pid_mountinfo(5): … root mount-point options … - type source super-options
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        if filesystem.next()? != "cgroup2" {
            return None;
        }
        let options = filesystem.nth(1).unwrap_or_default();
        let favordynmods = options.split(',').any(|option| option == "favordynmods");
        Some(Cgroup2 { path: mount.split(' ').nth(4)?.to_owned(), favordynmods })
    })
}

/// A sandbox is put into a cgroup of the unified hierarchy, or into none.
pub(super) fn cgroups(root: &Path) -> Finding {
    let subject = "cgroup2";
    let hint = "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 on /sys/fs/cgroup";
    let Some(mount) = cgroup2(root) else {
        return Finding::warn(subject, "not mounted: microVMs get no cgroup on the host", hint);
    };
    if mount.path != cgroup::ROOT {
        let detail = format!("mounted on {}: microVMs get no cgroup on the host", mount.path);
        return Finding::warn(subject, detail, hint);
    }
    let controllers = root.join(cgroup::ROOT.trim_start_matches('/')).join("cgroup.controllers");
    let controllers = fs::read_to_string(controllers).unwrap_or_default();
    let has = |name: &&str| controllers.split_whitespace().any(|controller| controller == *name);
    let lacking: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|name| !has(name)).collect();
    if lacking.is_empty() {
        return Finding::ok(subject, format!("mounted on {} with cpu, memory and pids", mount.path));
    }
    let detail = format!("mounted on {} without {}", mount.path, lacking.join(", "));
    Finding::warn(
        subject,
        detail,
        "boot with systemd.unified_cgroup_hierarchy=1: cgroup1 holds these controllers",
    )
}

/// Before Linux 6.12, KVM_CREATE_VM starts a thread that moves between cgroups, and waits for an RCU grace period, 20 to
/// 40 ms, unless cgroup2 is mounted for that. `nx_huge_pages=never` avoids it too, at a price that is never worth it:
/// on affected Intel processors a guest can then stop the host by a machine check.
pub(super) fn huge_page_recovery(root: &Path, release: &str) -> Finding {
    let subject = "VM creation";
    let setting =
        fs::read_to_string(root.join("sys/module/kvm/parameters/nx_huge_pages")).unwrap_or_default();
    let setting = setting.trim();
    if matches!(setting, "never" | "N") && affected_by_itlb_multihit(root) {
        let detail = format!(
            "kvm.nx_huge_pages={setting}: a guest can stop this host by a machine check (CVE-2018-12207)"
        );
        return Finding::warn(subject, detail, "load kvm without that parameter, or with nx_huge_pages=auto");
    }
    if setting.is_empty() {
        return Finding::ok(subject, "KVM has no nx_huge_pages here");
    }
    if version(release).is_some_and(|version| version >= KVM_THREAD_IS_CHEAP) {
        return Finding::ok(subject, "fast: this kernel's KVM makes no kernel thread for a VM");
    }
    if cgroup2(root).is_some_and(|mount| mount.favordynmods) {
        return Finding::ok(subject, "fast: cgroup2 is mounted with favordynmods");
    }
    let detail = format!("up to 40 ms slower: cgroup2 without favordynmods (kvm.nx_huge_pages={setting})");
    Finding::warn(subject, detail, "mount -o remount,favordynmods /sys/fs/cgroup")
}

fn affected_by_itlb_multihit(root: &Path) -> bool {
    let text = fs::read_to_string(root.join("sys/devices/system/cpu/vulnerabilities/itlb_multihit"));
    text.is_ok_and(|text| text.trim() != "Not affected")
}

pub(super) fn memory(root: &Path, needed_mib: u32) -> Finding {
    let subject = "memory";
    let text = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    match bulkhead_sys::meminfo::kib(&text, "MemAvailable").map(|kib| kib / 1024) {
        Some(mib) if mib < u64::from(needed_mib) => {
            let detail = format!("{mib} MiB available, a microVM may use {needed_mib} MiB");
            Finding::warn(subject, detail, "free memory, or set a smaller `memory_mib` in the configuration")
        }
        Some(mib) => Finding::ok(subject, format!("{mib} MiB available, a microVM may use {needed_mib} MiB")),
        None => Finding::warn(subject, "/proc/meminfo has no MemAvailable", "mount /proc"),
    }
}

/// Changes on the host that a microVM hears of, so that it need not ask for each name: one fanotify group for each, and a mark for
/// each directory that its containers know.
pub(super) fn file_watches(root: &Path, wanted: bool) -> Finding {
    let subject = "files";
    if !wanted {
        return Finding::ok(
            subject,
            "a microVM asks for each name: the configuration has exclusive_rootfs = false",
        );
    }
    let limit = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(root.join("proc/sys/fs/fanotify").join(name)).ok()?;
        text.trim().parse().ok()
    };
    match (limit("max_user_groups"), limit("max_user_marks")) {
        (Some(groups), Some(marks)) if groups >= FANOTIFY_GROUPS => Finding::ok(
            subject,
            format!(
                "up to {groups} microVMs with {marks} directories in all keep what they know of a rootfs"
            ),
        ),
        (Some(groups), _) => Finding::warn(
            subject,
            format!("only {groups} microVMs keep what they know of a rootfs; others ask for each name"),
            "raise the sysctl fs.fanotify.max_user_groups, by one for each microVM",
        ),
        (None, _) => Finding::warn(
            subject,
            "the kernel does not tell microVMs of changes to files: they ask for each name",
            "use Linux 5.13 or later with CONFIG_FANOTIFY, where programs without privileges may watch",
        ),
    }
}

/// Whether the host kernel or the VMM moves frames between a tap and a guest.
pub(super) fn network(root: &Path, wanted: bool) -> Finding {
    let subject = "network";
    let there = root.join(VHOST.trim_start_matches('/')).exists();
    let detail = match (wanted, there, may_use_vhost(root)) {
        (true, true, true) => "frames are moved by the host kernel: vhost-net".to_owned(),
        (true, true, false) => format!("frames are moved by the VMM: {VHOST} may not be opened"),
        (true, false, _) => format!("frames are moved by the VMM: there is no {VHOST}"),
        (false, ..) => "frames are moved by the VMM: the configuration has vhost_net = false".to_owned(),
    };
    Finding::ok(subject, detail)
}

/// Whether connections to the loopback addresses of a pod's network namespace reach the guest. Tries a BPF program, which is
/// attached to nothing.
pub(super) fn port_forward(root: bool, wanted: bool) -> Finding {
    let subject = "port-forward";
    if !wanted {
        return Finding::ok(subject, "off: the configuration has port_forward = false");
    }
    match Loopback::check() {
        Ok(()) => Finding::ok(subject, "the host kernel leads the pod's loopback addresses to the guest"),
        Err(_) if !root => {
            Finding::ok(subject, "not for a user: the kernel lets root alone have such a BPF program")
        }
        Err(error) => Finding::warn(
            subject,
            format!("kubectl port-forward finds nobody: {}", chain(&error)),
            "use Linux 5.9 or later with CONFIG_BPF_SYSCALL, and run containers with CAP_BPF and CAP_NET_ADMIN",
        ),
    }
}
