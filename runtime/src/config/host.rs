//! What the defaults of a microVM's size are taken from: the memory and the CPUs of this machine.

use std::{fs, path::Path};

use bulkhead_protocol::{cpu_list::CpuList, limits};

/// Of the machine's memory, what is left to the host: one part in this many.
const RESERVED_SHARE: u64 = 8;

/// What a machine has. Anything that cannot be read is taken for little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    /// All of it, in MiB.
    pub(super) memory_mib: u64,
    pub(super) cpus: u32,
    /// Those that this process may use; a container may use no others.
    pub(super) usable_cpus: u32,
}

impl Host {
    /// This machine, for this process.
    pub(super) fn here() -> Self {
        let usable = rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count());
        Self::below(Path::new("/"), usable)
    }

    fn below(root: &Path, usable_cpus: u32) -> Self {
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
        let online = CpuList::try_from(read("sys/devices/system/cpu/online"));
        Self {
            memory_mib: bulkhead_sys::meminfo::kib(&read("proc/meminfo"), "MemTotal").unwrap_or(0) / 1024,
            cpus: online.map_or(usable_cpus, |online| online.count()),
            usable_cpus,
        }
    }

    /// The most memory of a microVM, in MiB: what the host can do without.
    pub(super) fn max_memory_mib(self) -> u32 {
        let most = *limits::MEMORY_MIB.end();
        u32::try_from(self.memory_mib - self.memory_mib / RESERVED_SHARE).map_or(most, |mib| mib.min(most))
    }

    pub(super) fn max_vcpus(self) -> u8 {
        bounded(self.cpus)
    }

    /// vCPUs of a container without limits.
    pub(super) fn vcpus(self) -> u8 {
        bounded(self.usable_cpus)
    }
}

fn bounded(cpus: u32) -> u8 {
    u8::try_from(cpus).map_or(limits::VCPUS, |cpus| cpus.clamp(1, limits::VCPUS))
}

#[cfg(test)]
mod tests;
