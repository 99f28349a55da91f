//! /proc/meminfo (proc_meminfo(5)): lines like `MemTotal:       16384256 kB`.

/// The value of a field, in KiB; `None` when the text has no such line, or another unit.
#[must_use]
pub fn kib(meminfo: &str, field: &str) -> Option<u64> {
    let value =
        |line: &str| line.strip_prefix(field)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok();
    meminfo.lines().find_map(value)
}

#[cfg(test)]
mod tests;
