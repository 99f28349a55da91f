//! How much more memory the host has for a pod: what is available, and what each cgroup above its processes lets it have.

use std::{fs, path::Path};

use bulkhead_sys::meminfo;

use super::ROOT;

const MIB: u64 = 1 << 20;
/// Left to the host, in MiB: less would have it kill somebody soon.
const RESERVE: u64 = 64;

/// In MiB, beside all of a machine of `machine_mib`: the guest may touch the rest of it at any moment. `cgroup` is the pod's; what
/// cannot be read bounds nothing.
pub(crate) fn headroom(cgroup: Option<&Path>, machine_mib: u32) -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = cgroup.into_iter().flat_map(Path::ancestors).take_while(|path| path.starts_with(ROOT));
    of(&meminfo, groups).saturating_sub(cgroup.map_or(0, |cgroup| untouched(cgroup, machine_mib)))
}

/// What the host has not given to a machine yet, in MiB.
fn untouched(cgroup: &Path, machine_mib: u32) -> u64 {
    used(cgroup).map_or(0, |bytes| u64::from(machine_mib).saturating_sub(bytes / MIB))
}

fn of<'a>(meminfo: &str, groups: impl Iterator<Item = &'a Path>) -> u64 {
    let available = meminfo::kib(meminfo, "MemAvailable").map(|kib| kib / 1024);
    let bounds = groups.filter_map(of_group).chain(available).min();
    bounds.map_or(u64::MAX, |mib| mib.saturating_sub(RESERVE))
}

/// `None` without a bound of its own.
fn of_group(path: &Path) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().ok();
    let bound = ["memory.max", "memory.high"].into_iter().filter_map(number).min()?;
    Some(bound.saturating_sub(used(path)?) / MIB)
}

/// Bytes that the host cannot take back from a cgroup: it takes clean files back before it refuses or kills.
fn used(path: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(path.join(file)).ok();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let current = number(&read("memory.current")?)?;
    let stat = read("memory.stat")?;
    let files = ["inactive_file ", "active_file "];
    let files =
        files.iter().filter_map(|name| stat.lines().find_map(|line| number(line.strip_prefix(name)?)));
    Some(current.saturating_sub(files.sum()))
}

#[cfg(test)]
mod tests;
