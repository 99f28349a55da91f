//! The values in the files of a scope's cgroup, as properties of the unit.
//!
//! At a reload systemd writes the files of its units anew, from the properties: a value that is in a file alone is lost. The
//! files are written first, since the kernel checks them. Then their values become properties of the unit.

use std::{fs, path::Path};

use zbus::Variant;

/// No limit, as systemd's numbers have it.
const INFINITY: u64 = u64::MAX;

/// A property for each file that is there and says something systemd has a property for.
pub(super) fn of(cgroup: &Path) -> Vec<(&'static str, Variant<'static>)> {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    let number = |file: &str| read(file).and_then(|text| limit(text.trim()));
    let mut properties = Vec::new();
    let mut add = |name, value: Option<Variant<'static>>| {
        properties.extend(value.map(|value| (name, value)));
    };
    // An idle group has no weight: 0 is systemd's word for it.
    let idle = read("cpu.idle").is_some_and(|text| text.trim() == "1");
    let weight = if idle { Some(0) } else { number("cpu.weight") };
    add("CPUWeight", weight.map(Variant::from));
    add("CPUQuotaPerSecUSec", read("cpu.max").and_then(|text| quota(&text)).map(Variant::from));
    add("AllowedCPUs", read("cpuset.cpus").and_then(|text| bits(&text)).map(Variant::from));
    add("AllowedMemoryNodes", read("cpuset.mems").and_then(|text| bits(&text)).map(Variant::from));
    add("MemoryMax", number("memory.max").map(Variant::from));
    add("TasksMax", number("pids.max").map(Variant::from));
    let io = read("io.weight").and_then(|text| limit(text.lines().next()?.strip_prefix("default ")?.trim()));
    add("IOWeight", io.map(Variant::from));
    properties
}

fn limit(text: &str) -> Option<u64> {
    if text == "max" { Some(INFINITY) } else { text.parse().ok() }
}

/// Microseconds per second, from `QUOTA PERIOD`.
fn quota(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next()?, words.next()?.parse::<u64>().ok()?);
    match limit(quota)? {
        INFINITY => Some(INFINITY),
        quota => quota.checked_mul(1_000_000)?.checked_div(period),
    }
}

/// A mask of bytes, the lowest numbers first. An empty list is no property: it is what a unit has by itself.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for number in first.parse::<u16>().ok()?..=last.parse::<u16>().ok()? {
            let byte = usize::from(number / 8);
            if mask.len() <= byte {
                mask.resize(byte + 1, 0);
            }
            if let Some(byte) = mask.get_mut(byte) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    (!mask.is_empty()).then_some(mask)
}

#[cfg(test)]
mod tests;
