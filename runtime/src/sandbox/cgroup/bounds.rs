//! What a pod may take of its host, whatever its VMM does: the machine, and what serving it costs beside that.
//!
//!   Footprint (machine's size, margin) ─▶ memory.max, cpu.max, pids.max of the pod's cgroup, where they say `max`
//!
//! An honest pod never comes near them: its guest is bounded by the machine, and its VMM by the budgets of its devices. A
//! file that says something else already is its maker's, and stays. `docs/sizing.md` has the figures.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::sandbox::sizing::{Memory, Sizes};

const MIB: u64 = 1 << 20;
/// Server, proxy, VMM and what the kernel keeps for them.
const BASE: u64 = 64 * MIB;
/// What the host's kernel keeps of each page that the machine may have: one byte in this many.
const RECORDS: u64 = 256;
/// What an inode of the guest costs on the host: an entry of the file server, a descriptor, and the host's own inode and
/// name, which cannot be dropped meanwhile.
const FILE: u64 = 2560;
/// CPUs for what works beside the vCPUs: file server, device loop, vhost, server and proxies.
const HELPERS: u64 = 2;
/// Microseconds; the kernel's default.
const PERIOD: u64 = 100_000;
/// Processes and threads: 32 vCPUs, those beside them, and the kernel's own for KVM and vhost, twice over.
const TASKS: u64 = 512;

const MEMORY: &str = "memory.max";
const CPU: &str = "cpu.max";
const PIDS: &str = "pids.max";

#[derive(Debug, thiserror::Error)]
#[error("set {file} of the pod's cgroup {} to {value:?}", .path.display())]
pub struct BoundsError {
    path: PathBuf,
    file: &'static str,
    value: String,
    source: io::Error,
}

/// The bounds of one pod. What they were once they never fall below: the guest gives memory back when it can.
#[derive(Debug)]
pub struct Bounds {
    path: PathBuf,
    sizes: Sizes,
    /// Files that are ours to write.
    ours: Vec<&'static str>,
    memory: Mutex<u64>,
}

impl Bounds {
    /// Bounds a machine that is made with `sizes`.
    ///
    /// # Errors
    /// When the kernel does not take a value. Without a controller there is no bound.
    pub fn begin(path: &Path, sizes: Sizes, memory: Memory) -> Result<Self, BoundsError> {
        let is_free = |file: &&str| {
            let text = fs::read_to_string(path.join(file)).unwrap_or_default();
            text.split_whitespace().next() == Some("max")
        };
        let ours = [MEMORY, CPU, PIDS].into_iter().filter(is_free).collect();
        let bounds = Self { path: path.to_owned(), sizes, ours, memory: Mutex::new(0) };
        bounds.put(PIDS, TASKS.to_string())?;
        bounds.fit(sizes.memory_mib, sizes.vcpus)?;
        if memory == Memory::Unlimited {
            bounds.lift()?;
        }
        Ok(bounds)
    }

    /// For a machine that has, or is about to have, this size.
    ///
    /// # Errors
    /// As `begin`.
    pub fn fit(&self, memory_mib: u32, vcpus: u8) -> Result<(), BoundsError> {
        self.raise(memory(self.sizes, memory_mib))?;
        self.put(CPU, format!("{} {PERIOD}", (u64::from(vcpus) + HELPERS) * PERIOD))
    }

    /// A container without a limit has come.
    ///
    /// # Errors
    /// As `begin`.
    pub fn lift(&self) -> Result<(), BoundsError> {
        self.raise(memory(self.sizes, self.sizes.max_memory_mib))
    }

    /// How often the host's kernel has killed a process in it because it wanted more. Those below it are of `oom`.
    pub fn kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.events.local")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.parse().ok()).unwrap_or(0)
    }

    fn raise(&self, bytes: u64) -> Result<(), BoundsError> {
        let mut now = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > *now {
            self.put(MEMORY, bytes.to_string())?;
            *now = bytes;
        }
        Ok(())
    }

    fn put(&self, file: &'static str, value: String) -> Result<(), BoundsError> {
        if !self.ours.contains(&file) {
            return Ok(());
        }
        fs::write(self.path.join(file), &value).map_err(|source| BoundsError {
            path: self.path.clone(),
            file,
            value,
            source,
        })
    }
}

/// Bytes for a machine of `memory_mib`.
fn memory(sizes: Sizes, memory_mib: u32) -> u64 {
    let machine = u64::from(memory_mib) * MIB;
    let records = u64::from(sizes.max_memory_mib) * MIB / RECORDS;
    machine + BASE + records + sizes.files * FILE
}

#[cfg(test)]
mod tests;
