//! `bulkhead events`: what a container uses, at intervals, and each time the guest's kernel kills for want of memory.
//!
//!   Task.Stats at each tick ─▶ {"type":"stats",…}      Sandbox.WaitOom again and again ─▶ {"type":"oom",…}
//!
//! One JSON object per line, in runc's shape. The stream ends with the container.

use std::time::Duration;

use bulkhead_protocol::{
    limits,
    sandbox::{Empty, WaitOomRequest, WaitProcessRequest},
};
use containerd_shim_protos::{
    api::StatsRequest,
    cgroups_v2::metrics::{IOEntry, Metrics, NetworkStat},
};
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval};
use ttrpc::context;

use super::{Context, print, with_container};
use crate::{
    api::{
        client::{CallError, Server, bounded, unbounded},
        container::{Container, RequestError, not_running, refused},
        metrics_from_any,
    },
    error::Error,
    store::names,
};

/// Print what a container uses, and its out-of-memory kills, as JSON lines
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Between two lines of the stream: 500ms, 5s, 1m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    interval: Duration,
    /// Print what it uses now, and end
    #[arg(long)]
    stats: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        with_container(context, &self.id, "events of", |container| self.follow(container).map(|()| 0))
    }

    fn follow(&self, container: &Container) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("start", e))?;
        let gone = |e: std::io::Error| refused(CallError::Gone { reason: e.to_string() });
        let sandbox = container.sandbox.as_ref().ok_or_else(not_running)?;
        let stream = sandbox.dir.connect(names::SERVER_SOCKET).map_err(gone)?;
        runtime.block_on(async {
            let server = Server::on(stream).map_err(gone)?;
            let id = container.record.id.as_str();
            if self.stats {
                return print_stats(&server, id).await;
            }
            stream_of(&server, id, self.interval).await
        })
    }
}

async fn print_stats(server: &Server, id: &str) -> Result<(), Error> {
    let request = StatsRequest { id: id.to_owned(), ..Default::default() };
    let answer = server.task.stats(bounded(), &request).await.map_err(|e| refused(e.into()))?;
    let metrics = metrics_from_any(&answer.stats)
        .map_err(|e| Error::io("read the container's statistics", std::io::Error::other(e)))?;
    let counted = server.sandbox.machine_counters(bounded(), &Empty::default()).await;
    let machine = counted.map_err(|e| refused(e.into()))?.counters;
    line(&json!({"type": "stats", "id": id, "data": data(&metrics), "machine": machine}))
}

fn line(event: &Value) -> Result<(), Error> {
    print(&format!("{event}\n"))
}

async fn stream_of(server: &Server, id: &str, every: Duration) -> Result<(), Error> {
    let request = WaitProcessRequest { container_id: id.to_owned(), ..Default::default() };
    let exit = server.sandbox.wait_process(unbounded(), &request);
    tokio::pin!(exit);
    let mut seen = 0;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let kills = next_oom(server, id, seen);
    tokio::pin!(kills);
    let ended = loop {
        tokio::select! {
            ended = &mut exit => break ended,
            counted = &mut kills => {
                if counted > seen {
                    seen = counted;
                    line(&json!({"type": "oom", "id": id}))?;
                }
                kills.set(next_oom(server, id, seen));
            }
            _ = ticks.tick() => match print_stats(server, id).await {
                // It has just ended, which `exit` says in a moment.
                Ok(()) | Err(Error::Request(RequestError::Status(_))) => {}
                Err(error) => return Err(error),
            },
        }
    };
    match ended.map_err(CallError::from) {
        Ok(exit) if exit.oom_killed && seen == 0 => line(&json!({"type": "oom", "id": id})),
        Ok(_) => Ok(()),
        Err(error) => Err(refused(error).into()),
    }
}

/// The kills so far, at the latest after a while. Does not return when the container has ended, or nobody counts.
async fn next_oom(server: &Server, id: &str, seen: u64) -> u64 {
    let request = WaitOomRequest { container_id: id.to_owned(), seen, ..Default::default() };
    let deadline = context::with_duration(limits::OOM_POLL + 2 * limits::RPC);
    match server.sandbox.wait_oom(deadline, &request).await {
        Ok(answer) => answer.kills,
        Err(_) => std::future::pending().await,
    }
}

/// The `Stats` of runc's types/events.go, times in nanoseconds.
fn data(metrics: &Metrics) -> Value {
    let cpu = &metrics.cpu;
    let memory = &metrics.memory;
    // runc has 0 for no limit here, and the largest number for memory.
    let pids_limit = Some(metrics.pids.limit).filter(|limit| *limit != u64::MAX).unwrap_or(0);
    let hugetlb: Map<String, Value> = metrics
        .hugetlb
        .iter()
        .map(|size| (size.pagesize.clone(), json!({"usage": size.current, "max": size.max, "failcnt": 0})))
        .collect();
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_usec.saturating_mul(1000),
                "kernel": cpu.system_usec.saturating_mul(1000),
                "user": cpu.user_usec.saturating_mul(1000),
            },
            "throttling": {
                "periods": cpu.nr_periods,
                "throttledPeriods": cpu.nr_throttled,
                "throttledTime": cpu.throttled_usec.saturating_mul(1000),
            },
        },
        "cpuset": {},
        "memory": {
            "cache": memory.file,
            "usage": {
                "limit": memory.usage_limit,
                "usage": memory.usage,
                "max": memory.max_usage,
                "failcnt": metrics.memory_events.max,
            },
            "swap": {"limit": memory.swap_limit, "usage": memory.swap_usage, "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "failcnt": 0},
            "raw": raw(metrics),
        },
        "pids": {"current": metrics.pids.current, "limit": pids_limit},
        "blkio": {
            "ioServiceBytesRecursive": devices(metrics, |entry| (entry.rbytes, entry.wbytes)),
            "ioServicedRecursive": devices(metrics, |entry| (entry.rios, entry.wios)),
        },
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": metrics.network.iter().map(interface).collect::<Vec<_>>(),
    })
}

/// Two entries for each device: what `counters` says of reads and of writes.
fn devices(metrics: &Metrics, counters: impl Fn(&IOEntry) -> (u64, u64)) -> Vec<Value> {
    let entry = |device: &IOEntry, op: &str, value: u64| json!({"major": device.major, "minor": device.minor, "op": op, "value": value});
    let both = |device: &IOEntry| {
        let (reads, writes) = counters(device);
        [entry(device, "Read", reads), entry(device, "Write", writes)]
    };
    metrics.io.usage.iter().flat_map(both).collect()
}

/// The counters of memory.stat, by the kernel's names.
fn raw(metrics: &Metrics) -> Value {
    let memory = &metrics.memory;
    json!({
        "anon": memory.anon,
        "file": memory.file,
        "kernel_stack": memory.kernel_stack,
        "slab": memory.slab,
        "sock": memory.sock,
        "shmem": memory.shmem,
        "file_mapped": memory.file_mapped,
        "file_dirty": memory.file_dirty,
        "file_writeback": memory.file_writeback,
        "anon_thp": memory.anon_thp,
        "inactive_anon": memory.inactive_anon,
        "active_anon": memory.active_anon,
        "inactive_file": memory.inactive_file,
        "active_file": memory.active_file,
        "unevictable": memory.unevictable,
        "slab_reclaimable": memory.slab_reclaimable,
        "slab_unreclaimable": memory.slab_unreclaimable,
        "pgfault": memory.pgfault,
        "pgmajfault": memory.pgmajfault,
        "pgrefill": memory.pgrefill,
        "pgscan": memory.pgscan,
        "pgsteal": memory.pgsteal,
    })
}

/// Go's names: runc's struct has no tags here.
fn interface(stat: &NetworkStat) -> Value {
    json!({
        "Name": stat.name,
        "RxBytes": stat.rx_bytes,
        "RxPackets": stat.rx_packets,
        "RxErrors": stat.rx_errors,
        "RxDropped": stat.rx_dropped,
        "TxBytes": stat.tx_bytes,
        "TxPackets": stat.tx_packets,
        "TxErrors": stat.tx_errors,
        "TxDropped": stat.tx_dropped,
    })
}

/// Go's durations, in whole numbers: `5s`, `500ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 500ms, 5s or 1m30s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u32 = rest[..digits].parse().map_err(|_| bad())?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(bad()),
        };
        total = unit.checked_mul(number).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = &rest[unit_end..];
    }
    if total.is_zero() { Err(format!("{text:?}: the interval must be above 0")) } else { Ok(total) }
}

#[cfg(test)]
mod tests;
