//! What a container has used: the counters of its cgroup and of the interfaces in its network namespace.
//!
//! The kernel's files are read as they are. One that is missing (a controller that the guest does not have) leaves its
//! fields empty: a counter that cannot be read is no reason to say nothing of the others.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    os::fd::AsFd as _,
    path::Path,
};

use bulkhead_protocol::agent::{ContainerStatsResponse, HugetlbStat, InterfaceStat, IoStat};
use bulkhead_sys::pidfd::by_number;

use super::running::Running;

/// Bytes of one such file.
const FILE: u64 = 256 << 10;
/// Devices, page sizes or interfaces of one container.
const ROWS: usize = 256;

/// Reads all of it now.
pub fn read(container: &Running) -> ContainerStatsResponse {
    let directory = container.cgroup.path();
    let text = |file: &str| read_text(&directory.join(file));
    let number = |file: &str| limit(&text(file));
    let network = by_number(container.pid, container.pidfd.as_fd(), |pid| {
        read_text(Path::new(&format!("/proc/{pid}/net/dev")))
    });
    ContainerStatsResponse {
        cpu: keyed(&text("cpu.stat")),
        memory: keyed(&text("memory.stat")),
        memory_events: keyed(&text("memory.events")),
        memory_current: number("memory.current"),
        memory_max: number("memory.max"),
        memory_peak: number("memory.peak"),
        swap_current: number("memory.swap.current"),
        swap_max: number("memory.swap.max"),
        pids_current: number("pids.current"),
        pids_max: number("pids.max"),
        io: text("io.stat").lines().filter_map(device).take(ROWS).collect(),
        hugetlb: hugetlb(directory),
        interfaces: interfaces(&network.unwrap_or_default()),
        ..ContainerStatsResponse::new()
    }
}

fn read_text(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is as good as any other moment's.
        let _ = file.take(FILE).read_to_string(&mut text);
    }
    text
}

/// One number, or `max`.
fn limit(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

/// A flat keyed file: `name value`.
fn keyed(text: &str) -> HashMap<String, u64> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn device(line: &str) -> Option<IoStat> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut stat = IoStat { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoStat::new() };
    for word in words {
        let (name, value) = word.split_once('=')?;
        let value = value.parse().ok()?;
        match name {
            "rbytes" => stat.read_bytes = value,
            "wbytes" => stat.written_bytes = value,
            "rios" => stat.reads = value,
            "wios" => stat.writes = value,
            // Discards, and what later kernels add.
            _ => {}
        }
    }
    Some(stat)
}

/// One row for each `hugetlb.SIZE.current`.
fn hugetlb(directory: &Path) -> Vec<HugetlbStat> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let size = name.to_str()?.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
        if size.contains('.') {
            // `hugetlb.SIZE.rsvd.current` counts reservations.
            return None;
        }
        let max = limit(&read_text(&directory.join(format!("hugetlb.{size}.max"))));
        let current = limit(&read_text(&entry.path()));
        Some(HugetlbStat { page_size: size.to_owned(), current, max, ..HugetlbStat::new() })
    };
    names.filter_map(one).take(ROWS).collect()
}

/// /proc/PID/net/dev: two lines of headings, then `name: ` and eight counters each of receive and transmit.
fn interfaces(text: &str) -> Vec<InterfaceStat> {
    let one = |line: &str| {
        let (name, counters) = line.rsplit_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = counters[..]
        else {
            return None;
        };
        let name = name.trim().to_owned();
        Some(InterfaceStat {
            name,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..InterfaceStat::new()
        })
    };
    text.lines().skip(2).filter_map(one).take(ROWS).collect()
}

#[cfg(test)]
mod tests;
