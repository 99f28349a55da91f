//! The guest part of an OCI spec: what the agent needs to make a container, already checked by the host, host paths
//! gone. The agent checks it again where its own safety depends on it, for it trusts the server but not the bundle.
//!
//! Paths named `destination`, `cwd` and the like are absolute paths in the container; a `SharePath` is relative to
//! the root of the virtio-fs share. Numbers are the guest kernel's own (device numbers, signal and capability bits).

mod confinement;
mod scheduling;
mod volume;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    confinement::{Confinement, FilterError, FilterProgram, MemoryPolicy, Personality, Seccomp},
    scheduling::{Cpus, ExecCpus, IoPriority, Scheduler, Scheduling},
    volume::{Disk, DiskFilesystem, Memory, Place, SocketFile, Submount, Volume, VolumeKind},
};
use crate::{hook::StartHooks, id::ContainerId, vmm::Slot};

/// A container to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    pub rootfs: Rootfs,
    pub process: ProcessSpec,
    /// No program is run: the first process waits for its end, and reaps. It holds the namespaces of a pod.
    pub pauses: bool,
    /// Each kind at most once. A kind that is missing is shared with the sandbox (the guest's own).
    pub namespaces: Vec<Namespace>,
    /// The container of this sandbox whose namespaces those of place `Joined` are.
    pub join: Option<ContainerId>,
    /// Only with a user namespace.
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    /// Only with a time namespace.
    pub time_offsets: TimeOffsets,
    /// Set in the container's own UTS namespace.
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Beside the default ones (null zero full random urandom tty, ptmx, and the links of /dev).
    pub devices: Vec<DeviceNode>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub sysctl: BTreeMap<String, String>,
    /// Settings of no namespace, thus of the whole guest; the operator allows them.
    pub guest_sysctl: BTreeMap<String, String>,
    pub resources: Resources,
    pub confinement: Confinement,
    /// Run in the container just before its program.
    pub start_hooks: Option<StartHooks>,
}

/// A path below the share's root: relative, no empty, `.` or `..` component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SharePath(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a path below the share")]
pub struct SharePathError(String);

impl TryFrom<String> for SharePath {
    type Error = SharePathError;

    fn try_from(path: String) -> Result<Self, SharePathError> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if path.split('/').all(plain) { Ok(Self(path)) } else { Err(SharePathError(path)) }
    }
}

impl From<SharePath> for String {
    fn from(path: SharePath) -> String {
        path.0
    }
}

impl SharePath {
    /// The place of a volume, by its number in the sandbox: a child of the root. No container's id begins like it.
    pub fn of_volume(number: u64) -> Self {
        Self(format!("@{number}"))
    }

    /// The name of a disk that is a volume.
    pub fn of_disk(slot: Slot) -> Self {
        Self(format!("@disk{}", slot.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rootfs {
    pub source: SharePath,
    /// The host's mount is read-only as well.
    pub readonly: bool,
    pub propagation: Option<Propagation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    pub kind: NamespaceKind,
    pub place: NamespacePlace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespacePlace {
    /// A fresh one for this container.
    New,
    /// That of the container that `ContainerSpec::join` names; pid, ipc, uts or network.
    Joined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

/// What the clocks of a time namespace are ahead of the guest's, which began at the boot of the microVM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeOffsets {
    pub monotonic: Option<TimeOffset>,
    pub boottime: Option<TimeOffset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeOffset {
    pub seconds: i64,
    /// Below 1,000,000,000, and always forward.
    pub nanoseconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Resolved inside the rootfs (RESOLVE_IN_ROOT); made when missing, a file when the source is one.
    pub destination: String,
    pub source: MountSource,
    /// `MOUNT_ATTR_*` bits (linux/mount.h) to set on the mount itself, and on its children with `recursive_set`.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// The same, for the mount and all mounts below it.
    pub recursive_set: u64,
    pub recursive_clear: u64,
    /// Superblock flags by name for fsconfig (ro, sync, dirsync, lazytime, mand, silent …), given without value.
    pub super_flags: Vec<String>,
    /// `key=value` or `key` of the filesystem (size=, mode=, newinstance …), unknown options included.
    pub data: Vec<String>,
    pub propagation: Option<Propagation>,
    /// tmpfs only: start with a copy of what the rootfs has there.
    pub copy_up: bool,
    /// tmpfs only: its owners are seen as others. A bind has its map from the host.
    pub id_map: Option<IdMap>,
}

/// Of a mount: an id of the filesystem (`container`) is seen as another (`host`), as in the maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
    /// Also on the mounts below it.
    pub recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MountSource {
    /// A directory, file or disk of the host, by the name of its export. The host puts `Bind` there when the guest has it.
    Export { name: SharePath },
    /// A directory or file in a volume, without what is mounted below it but for `submounts`, each after those above it.
    Bind { place: Place, submounts: Vec<Submount> },
    /// A new filesystem of the guest: proc, sysfs, tmpfs, devpts, mqueue. `source` is the name it shows.
    Filesystem { kind: String, source: String },
    /// The container's cgroup2 hierarchy (the spec says `cgroup` or `cgroup2`).
    Cgroup,
    /// What is mounted at the destination already: its attributes and propagation change.
    Remount,
}

impl MountSource {
    /// Whether it is the export of this name.
    pub fn is_export(&self, wanted: &SharePath) -> bool {
        matches!(self, Self::Export { name } if name == wanted)
    }

    pub fn is_tmpfs(&self) -> bool {
        matches!(self, Self::Filesystem { kind, .. } if kind == "tmpfs")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propagation {
    pub mode: PropagationMode,
    pub recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PropagationMode {
    Private,
    Shared,
    Slave,
    Unbindable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceNode {
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// The guest's device at `path` is meant, and the numbers are the host's: in rules they stand for the guest's.
    pub by_name: bool,
    /// Of a disk of the host: where the host has plugged it, `None` until it has. The numbers are the host's: in rules they stand for
    /// the guest's.
    pub disk: Option<Slot>,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

/// cgroup2 limits; `None` leaves the kernel's default. `Some(Limit::Max)` writes `max`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// memory.max, bytes.
    pub memory_max: Option<Limit>,
    /// memory.low, bytes.
    pub memory_low: Option<Limit>,
    /// memory.swap.max, bytes (swap alone: the spec's sum minus the limit).
    pub memory_swap_max: Option<Limit>,
    /// Refuse a `memory_max` below what is in use, instead of reclaiming and killing.
    pub memory_check_before_update: bool,
    /// cpu.weight, 1 to 10000.
    pub cpu_weight: Option<u64>,
    /// cpu.max: quota and period in microseconds.
    pub cpu_quota: Option<Limit>,
    pub cpu_period: Option<u64>,
    /// cpu.max.burst, microseconds.
    pub cpu_burst: Option<u64>,
    /// cpu.idle.
    pub cpu_idle: Option<bool>,
    /// pids.max.
    pub pids_max: Option<Limit>,
    /// io.weight, 1 to 10000.
    pub io_weight: Option<u64>,
    /// hugetlb.SIZE.max, bytes by page size (`2MB`), refused where the guest has no such pages.
    pub hugetlb_max: BTreeMap<String, Limit>,
    /// Further files of the container's cgroup: plain names with a controller's prefix, written after the others.
    pub unified: BTreeMap<String, String>,
    /// Device access, in order; empty allows what the default list of runc allows.
    pub devices: Vec<DeviceRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    Max,
    Value(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule {
    pub allow: bool,
    /// `None`: both.
    pub kind: Option<DeviceKind>,
    /// `None`: any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

/// A process to run: the container's first, or one by `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// At least one. `args[0]` is looked up in the PATH of `env` inside the rootfs when it has no slash.
    pub args: Vec<String>,
    /// `KEY=value`, in order.
    pub env: Vec<String>,
    /// Absolute; made when missing (as root), entered as the user.
    pub cwd: String,
    pub user: User,
    pub terminal: bool,
    /// Columns and rows at the start; only with a terminal.
    pub console_size: Option<(u16, u16)>,
    /// The terminal writes a line feed as it is, without a carriage return in front (ONLCR of termios(3) is off): who reads from
    /// it adds that, or wants none. Of no effect without a terminal.
    pub plain_line_feeds: bool,
    /// `None`: keep what the agent has (as when the spec has no capabilities: all five sets empty in runc terms).
    pub capabilities: Option<Capabilities>,
    /// Each kind at most once.
    pub rlimits: Vec<Rlimit>,
    /// For kinds that `rlimits` lacks: those of the caller, from whom a process has them. Each kind at most once. What the guest's
    /// kernel does not take is cut to what it takes.
    pub inherited_rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub scheduling: Scheduling,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// Permission bits; `None` leaves 0022.
    pub umask: Option<u32>,
}

/// Five sets as bit masks, bit N = capability number N of linux/capability.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// `RLIMIT_*` of x86_64 (asm-generic/resource.h): 0 to 15.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

#[cfg(test)]
mod tests;
