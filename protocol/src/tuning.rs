//! Settings below /proc/sys that belong to a whole kernel and that manuals of programs ask for, from the host to the guest.
//!
//!   host's /proc/sys ─(server)▶ Tuning ─CreateContainer▶ agent ─▶ guest's /proc/sys, where that says less
//!
//! Under a runtime that shares the host's kernel a container finds the host's values. What a namespace carries is not
//! among them: a new ipc or network namespace begins with the kernel's defaults there too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A setting whose larger value allows programs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    MaxMapCount,
    FileMax,
    NrOpen,
    AioMaxNr,
    PipeMaxSize,
    EpollWatches,
    InotifyWatches,
    InotifyInstances,
    InotifyEvents,
    FanotifyGroups,
    FanotifyMarks,
    FanotifyEvents,
    PidMax,
    ThreadsMax,
    Keys,
    KeyBytes,
    RootKeys,
    RootKeyBytes,
    ReceiveBuffer,
    SendBuffer,
    UserNamespaces,
    PidNamespaces,
    MountNamespaces,
    NetworkNamespaces,
    IpcNamespaces,
    UtsNamespaces,
    CgroupNamespaces,
    TimeNamespaces,
}

use Setting::*;

/// With the file below /proc/sys, the largest value that Linux takes there, and the least that a guest of any size has by
/// itself: what is not more is not worth a message.
const SETTINGS: [(Setting, &str, u64, u64); 28] = [
    (MaxMapCount, "vm/max_map_count", INT, 65_530),
    (FileMax, "fs/file-max", LONG, 0),
    // Without the last 63, which the kernel's tables cannot have.
    (NrOpen, "fs/nr_open", INT - 63, 1 << 20),
    (AioMaxNr, "fs/aio-max-nr", LONG, 1 << 16),
    (PipeMaxSize, "fs/pipe-max-size", 1 << 31, 1 << 20),
    (EpollWatches, "fs/epoll/max_user_watches", LONG, 0),
    (InotifyWatches, "fs/inotify/max_user_watches", INT, 8192),
    (InotifyInstances, "fs/inotify/max_user_instances", INT, 128),
    (InotifyEvents, "fs/inotify/max_queued_events", INT, 16_384),
    (FanotifyGroups, "fs/fanotify/max_user_groups", INT, 128),
    (FanotifyMarks, "fs/fanotify/max_user_marks", INT, 8192),
    (FanotifyEvents, "fs/fanotify/max_queued_events", INT, 16_384),
    (PidMax, "kernel/pid_max", 1 << 22, 1 << 15),
    (ThreadsMax, "kernel/threads-max", (1 << 30) - 1, 0),
    (Keys, "kernel/keys/maxkeys", INT, 200),
    (KeyBytes, "kernel/keys/maxbytes", INT, 20_000),
    (RootKeys, "kernel/keys/root_maxkeys", INT, 1_000_000),
    (RootKeyBytes, "kernel/keys/root_maxbytes", INT, 25_000_000),
    // Of the whole kernel, although they are below `net`: a socket of any namespace is bounded by them.
    (ReceiveBuffer, "net/core/rmem_max", INT, 212_992),
    (SendBuffer, "net/core/wmem_max", INT, 212_992),
    (UserNamespaces, "user/max_user_namespaces", INT, 0),
    (PidNamespaces, "user/max_pid_namespaces", INT, 0),
    (MountNamespaces, "user/max_mnt_namespaces", INT, 0),
    (NetworkNamespaces, "user/max_net_namespaces", INT, 0),
    (IpcNamespaces, "user/max_ipc_namespaces", INT, 0),
    (UtsNamespaces, "user/max_uts_namespaces", INT, 0),
    (CgroupNamespaces, "user/max_cgroup_namespaces", INT, 0),
    (TimeNamespaces, "user/max_time_namespaces", INT, 0),
];

const INT: u64 = i32::MAX as u64;
const LONG: u64 = i64::MAX as u64;

impl Setting {
    /// Each once.
    pub fn all() -> impl Iterator<Item = Self> {
        SETTINGS.into_iter().map(|(setting, ..)| setting)
    }

    /// Below /proc/sys.
    pub fn file(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (Self, &'static str, u64, u64) {
        // In the order of the enum, which a test checks.
        SETTINGS[self as usize]
    }
}

/// How a kernel answers those who want more memory than there is (vm.overcommit_memory of proc_sys_vm(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overcommit {
    /// It gives. The host's heuristic means the same to a guest: what it would refuse is more than all of a host's memory, of
    /// which a guest that has not grown yet has little.
    #[default]
    Always,
    /// It gives no more than this in all, in KiB.
    Limit(u64),
}

/// What a guest is set to before its first container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawTuning")]
pub struct Tuning {
    raise: BTreeMap<Setting, u64>,
    pub overcommit: Overcommit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTuning {
    raise: BTreeMap<Setting, u64>,
    overcommit: Overcommit,
}

impl From<RawTuning> for Tuning {
    fn from(raw: RawTuning) -> Self {
        let mut tuning = Self { raise: BTreeMap::new(), overcommit: raw.overcommit };
        raw.raise.into_iter().for_each(|(setting, value)| tuning.raise(setting, value));
        tuning
    }
}

impl Tuning {
    /// The setting shall be at least `value`, or the largest that Linux takes.
    pub fn raise(&mut self, setting: Setting, value: u64) {
        let (_, _, most, own) = setting.row();
        if value > own {
            self.raise.insert(setting, value.min(most));
        }
    }

    /// What shall be at least so much.
    pub fn raised(&self) -> impl Iterator<Item = (Setting, u64)> {
        self.raise.iter().map(|(setting, value)| (*setting, *value))
    }
}

#[cfg(test)]
mod tests;
