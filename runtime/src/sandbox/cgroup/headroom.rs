//! How much more memory the host has for a pod: what is available, and what each cgroup above its processes lets it have.

use std::{fs, path::Path};

use bulkhead_sys::meminfo;

use super::ROOT;

const MIB: u64 = 1 << 20;
/// Left to the host, in MiB: less would have it kill somebody soon.
const RESERVE: u64 = 64;

/// In MiB. `cgroup` is the pod's; what cannot be read bounds nothing.
pub(crate) fn headroom(cgroup: Option<&Path>) -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = cgroup.into_iter().flat_map(Path::ancestors).take_while(|path| path.starts_with(ROOT));
    of(&meminfo, groups)
}

fn of<'a>(meminfo: &str, groups: impl Iterator<Item = &'a Path>) -> u64 {
    let available = meminfo::kib(meminfo, "MemAvailable").map(|kib| kib / 1024);
    let bounds = groups.filter_map(of_group).chain(available).min();
    bounds.map_or(u64::MAX, |mib| mib.saturating_sub(RESERVE))
}

/// `None` without a bound of its own.
fn of_group(path: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(path.join(file)).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let bound = ["memory.max", "memory.high"].into_iter().filter_map(|file| number(read(file)?)).min()?;
    let current = number(read("memory.current")?)?;
    let stat = read("memory.stat")?;
    // The host takes clean files back before it refuses or kills.
    let files = ["inactive_file ", "active_file "];
    let files =
        files.iter().filter_map(|name| stat.lines().find_map(|line| number(line.strip_prefix(name)?.into())));
    Some(bound.saturating_sub(current.saturating_sub(files.sum())) / MIB)
}

#[cfg(test)]
mod tests;
