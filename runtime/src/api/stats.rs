//! What the guest has counted, as containerd's `Metrics` of cgroup2: the Task API's answer, and what `events` reads.

use std::collections::HashMap;

use bulkhead_protocol::agent::ContainerStatsResponse;
use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, NetworkStat, PidsStat,
};
use protobuf::{Message as _, well_known_types::any::Any};

/// The name under which containerd's clients look for it.
const METRICS: &str = "io.containerd.cgroups.v2.Metrics";
/// Devices, page sizes or interfaces that are passed on.
const ROWS: usize = 256;

/// Of a container that has none any more: every part is there, and 0.
///
/// # Errors
/// As `to_any`.
pub(crate) fn none() -> Result<Any, protobuf::Error> {
    to_any(&metrics(ContainerStatsResponse::default()))
}

pub(super) fn metrics(mut stats: ContainerStatsResponse) -> Metrics {
    stats.io.truncate(ROWS);
    stats.hugetlb.truncate(ROWS);
    stats.interfaces.truncate(ROWS);
    let pids = PidsStat { current: stats.pids_current, limit: stats.pids_max, ..Default::default() };
    let entries = stats.io.into_iter().map(|device| IOEntry {
        major: device.major,
        minor: device.minor,
        rbytes: device.read_bytes,
        wbytes: device.written_bytes,
        rios: device.reads,
        wios: device.writes,
        ..Default::default()
    });
    let hugetlb = stats.hugetlb.into_iter().map(|size| HugeTlbStat {
        pagesize: size.page_size,
        current: size.current,
        max: size.max,
        ..Default::default()
    });
    let network = stats.interfaces.into_iter().map(|interface| NetworkStat {
        name: interface.name,
        rx_bytes: interface.rx_bytes,
        rx_packets: interface.rx_packets,
        rx_errors: interface.rx_errors,
        rx_dropped: interface.rx_dropped,
        tx_bytes: interface.tx_bytes,
        tx_packets: interface.tx_packets,
        tx_errors: interface.tx_errors,
        tx_dropped: interface.tx_dropped,
        ..Default::default()
    });
    let memory = MemoryStat {
        usage: stats.memory_current,
        usage_limit: stats.memory_max,
        max_usage: stats.memory_peak,
        swap_usage: stats.swap_current,
        swap_limit: stats.swap_max,
        ..memory(&stats.memory)
    };
    Metrics {
        pids: Some(pids).into(),
        cpu: Some(cpu(&stats.cpu)).into(),
        memory: Some(memory).into(),
        io: Some(IOStat { usage: entries.collect(), ..Default::default() }).into(),
        hugetlb: hugetlb.collect(),
        memory_events: Some(events(&stats.memory_events)).into(),
        network: network.collect(),
        ..Default::default()
    }
}

fn counter(file: &HashMap<String, u64>) -> impl Fn(&str) -> u64 {
    |name| file.get(name).copied().unwrap_or(0)
}

/// cpu.stat
fn cpu(file: &HashMap<String, u64>) -> CPUStat {
    let get = counter(file);
    CPUStat {
        usage_usec: get("usage_usec"),
        user_usec: get("user_usec"),
        system_usec: get("system_usec"),
        nr_periods: get("nr_periods"),
        nr_throttled: get("nr_throttled"),
        throttled_usec: get("throttled_usec"),
        nr_bursts: get("nr_bursts"),
        burst_usec: get("burst_usec"),
        ..Default::default()
    }
}

/// memory.stat. The kernel counts refaults and activations of anonymous memory and of files apart since 5.9.
fn memory(file: &HashMap<String, u64>) -> MemoryStat {
    let get = counter(file);
    let both = |name: &str| get(name) + get(&format!("{name}_anon")) + get(&format!("{name}_file"));
    MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        ..Default::default()
    }
}

/// memory.events
fn events(file: &HashMap<String, u64>) -> MemoryEvents {
    let get = counter(file);
    MemoryEvents {
        low: get("low"),
        high: get("high"),
        max: get("max"),
        oom: get("oom"),
        oom_kill: get("oom_kill"),
        oom_group_kill: get("oom_group_kill"),
        ..Default::default()
    }
}

pub(super) fn to_any(metrics: &Metrics) -> protobuf::Result<Any> {
    let value = metrics.write_to_bytes()?;
    Ok(Any { type_url: METRICS.to_owned(), value, ..Default::default() })
}

/// # Errors
/// When it is something else, or broken.
pub(crate) fn from_any(any: &Any) -> protobuf::Result<Metrics> {
    if any.type_url != METRICS {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not cgroup2 metrics").into());
    }
    Metrics::parse_from_bytes(&any.value)
}

#[cfg(test)]
mod tests;
