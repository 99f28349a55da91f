//! Each difference that is right, with its reason. Where the values are known they are part of the rule.

use super::NOTHING;

/// Case, fact, the reference's value, ours, and why. `*` stands for anything.
const ALLOWED: &[(&str, &str, &str, &str, &str)] = &[
    // The guest's kernel.
    ("*", "kernel", "*", "*", "a guest has its own kernel"),
    ("*", "uptime", "*", "*", "a guest has booted later than the host"),
    ("*", "calls.init_module", "EPERM", "ENOSYS", "the guest's kernel has no modules"),
    ("*", "calls.open_by_handle_at", "*", "EBADF", "newer kernels look at the descriptor first"),
    ("*", "scheduler.runtime", "0", "*", "newer kernels tell the time slice"),
    ("*", "guarded./proc/acpi", "*", "missing", "the guest's kernel has no ACPI files"),
    ("*", "guarded./proc/bus", "read: entries, *", "read: empty, *", "the guest has no buses to list"),
    ("*", "guarded./proc/kcore", "*", "missing", "the guest's kernel has no such file to mask"),
    (
        "none",
        "guarded./sys/firmware",
        "read: entries, *",
        "read: empty, *",
        "the guest has no firmware to tell of",
    ),
    ("*", "mount /proc/acpi.*", "*", NOTHING, "the guest's kernel has no such files to mask"),
    ("*", "mount /proc/kcore.*", "*", NOTHING, "the guest's kernel has no such file to mask"),
    ("*", "places./proc/kcore", "*", NOTHING, "the guest's kernel has no such file to mask"),
    (
        "*",
        "mount *.data.inode64",
        "set",
        NOTHING,
        "the guest's kernel has it for all tmpfs, and does not say so",
    ),
    ("*", "mount /proc/*.data.nr_inodes", "*", "*", "by default a share of the machine's memory"),
    ("*", "mount /proc/*.data.size", "*", "*", "by default a share of the machine's memory"),
    (
        "*",
        "mount /sys/fs/cgroup.data.memory_recursiveprot",
        "set",
        NOTHING,
        "the host's choice for its cgroups",
    ),
    ("*", "status.Kthread", NOTHING, "0", "a field of newer kernels"),
    ("*", "status.untag_mask", NOTHING, "*", "a field of newer kernels"),
    ("*", "status.x86_Thread_features*", NOTHING, "*", "a field of newer kernels"),
    ("*", "status.Speculation_*", "*", "*", "depends on the CPU, which the hypervisor tells to the guest"),
    // The guest's size.
    ("*", "status.Cpus_allowed*", "*", "*", "a guest has CPUs of its own"),
    ("*", "status.Mems_allowed", "*", "*", "the guest's kernel is built for fewer nodes"),
    // The moment.
    ("*", "status.Rss*", "*", "*", "memory in use at that moment"),
    ("*", "status.Vm*", "*", "*", "memory in use at that moment"),
    ("*", "status.*ctxt_switches", "*", "*", "a count of the moment"),
    // What nobody has set comes from who started the container.
    ("*", "status.SigQ", "*/*", "*/*", "signals that wait for any process of the user, and their limit"),
    ("*", "status.SigIgn", "*", "0000000000001000", "inherited: what the caller ignores"),
    // The rootfs.
    ("*", "mount /.type", "*", "virtiofs", "the rootfs is shared by virtio-fs"),
    ("*", "mount /.source", "*", "none", "the rootfs is shared by virtio-fs"),
    ("*", "mount /.data.*", "*", "*", "options of the filesystem on which the host keeps it"),
    ("*", "mount /.option.nodev", NOTHING, "set", "virtio-fs never makes device nodes"),
    ("*", "mount /.option.nosuid", "set", NOTHING, "an option of the host's /tmp"),
    (
        "user*",
        "mount /dev/*.option.noexec",
        "set",
        NOTHING,
        "an option of the host's /dev, of no effect on a device",
    ),
    ("user*", "mount /dev/*.data.nr_inodes", "*", "*", "by default a share of the machine's memory"),
    ("user*", "mount /dev/*.data.size", "*", "*", "by default a share of the machine's memory"),
    ("user*", "sysctls.net/core/somaxconn", "null", "4096", "newer kernels show it to a user namespace"),
    // What a sandbox shares with its container is the guest's, not the host's.
    ("shared uts", "*hostname", "*", "bulkhead", "the guest's name"),
    ("shared cgroup", "cgroup", "0::/*", "0::/bulkhead/*", "where the guest keeps its containers"),
    (
        "shared cgroup",
        "cgroup_files.*",
        "null",
        "*",
        "the container sees its own cgroup, and not the guest's tree",
    ),
    (
        "shared cgroup",
        "mount /sys/fs/cgroup.root",
        "/",
        "/bulkhead/*",
        "the container sees its own cgroup only",
    ),
    ("shared cgroup", "places./sys/fs/cgroup", "*", "*", "the container sees its own cgroup only"),
    (
        "*",
        "mount /sys/fs/cgroup.data.nsdelegate",
        NOTHING,
        "set",
        "the guest's choice, as systemd's on hosts",
    ),
    // runc's habits rather than crun's.
    ("*", "env.HOME", NOTHING, "/", "as with runc, which sets it also for who is not in passwd"),
    ("*", "environ", "*", "*,\"HOME=/\",*", "as with runc, which sets it also for who is not in passwd"),
    ("*", "mount *.data.mode", NOTHING, "*", "as with runc, a tmpfs has the mode of the directory it covers"),
    ("*", "places.*", "1777 0:0", "*", "as with runc, a tmpfs has the mode of the directory it covers"),
    (
        "flags one after the other",
        "mount /tmp.option.*",
        "*",
        "*",
        "as with runc, the last of two opposites counts",
    ),
    ("bind unbindable", "mount /data.propagation", "", "unbindable", "crun 1.8 forgets it"),
    (
        "proc and sysfs with options",
        "mount /proc/*.option.*",
        NOTHING,
        "set",
        "crun forgets the options of what it covers",
    ),
    (
        "dev without a mount",
        "mount /sys.option.*",
        "set",
        NOTHING,
        "crun adds options that were not asked for",
    ),
    (
        "rootfs *",
        "mount /proc/keys.propagation",
        "shared",
        "",
        "crun binds the host's null device, which is shared",
    ),
    (
        "no rules",
        "stdout",
        "*\nEPERM\nok\n",
        "*\nEPERM\nEPERM\n",
        "as with runc, devices are guarded also without rules",
    ),
    (
        "cpu",
        "cgroup_files.cpu.weight",
        "20",
        "59",
        "as with newer crun and runc, 1024 shares are a weight of 100",
    ),
    (
        "huge pages",
        "cgroup_files.hugetlb.2MB.rsvd.max",
        "max",
        "4194304",
        "as with runc, and as the spec wants",
    ),
    (
        "a name that nobody knows",
        "stderr",
        "",
        "bulkhead: warning: linux.seccomp.*",
        "a warning that crun does not give",
    ),
    (
        "cpu set",
        "cgroup_files.cpuset.*",
        "0",
        "",
        "the host's CPUs and nodes, which bound the microVM from outside",
    ),
    // Volumes.
    ("bind*", "mount *.data.*", "*", "*", "options of the filesystem on which the host keeps them"),
    ("bind*", "mount *.type", "*", "virtiofs", "volumes are shared by virtio-fs"),
    ("bind*", "mount *.source", "*", "*", "volumes are shared by virtio-fs"),
    ("bind*", "mount *.option.nodev", NOTHING, "set", "virtio-fs never makes device nodes"),
    (
        "dev without a mount",
        "mount /dev/*",
        NOTHING,
        "*",
        "the guest's devices are bound where no node can be made",
    ),
    (
        "dev without a mount",
        "places./dev/*",
        NOTHING,
        "666 0:0",
        "the guest's devices are bound where no node can be made",
    ),
    (
        "nodes",
        "mount /elsewhere/full.*",
        NOTHING,
        "*",
        "the guest's devices are bound where no node can be made",
    ),
    (
        "nodes",
        "places./elsewhere/full",
        NOTHING,
        "666 0:0",
        "the guest's devices are bound where no node can be made",
    ),
    // Of no consequence.
    ("as engines do", "mount /proc/timer_list.option.*", "*", "*", "a null device needs not be read-only"),
    ("*", "mount /proc/keys.option.*", "*", "*", "a null device needs not be read-only"),
    ("*", "mount /sys/firmware.data.*", "*", "*", "the filesystem or the mount is read-only"),
    ("*", "mount /sys/fs/cgroup.source", "cgroup2", "cgroup", "crun does not take the source of the spec"),
];

pub(super) fn is_allowed(case: &str, fact: &str, theirs: &str, ours: &str) -> bool {
    ALLOWED.iter().any(|(cases, facts, reference, bulkhead, _)| {
        matches(cases, case) && matches(facts, fact) && matches(reference, theirs) && matches(bulkhead, ours)
    })
}

/// `*` stands for any text, also none.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|text| matches(rest, text)))
        }),
    }
}

#[cfg(test)]
mod tests;
