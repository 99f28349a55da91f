//! `bulkhead update`: changes limits of a container that exists.
//!
//!   flags, a file or standard input ─▶ JSON of `linux.resources` ─checks of create─▶ server ─▶ cgroups of host and guest
//!
//! All of what is given changes, or nothing does. What is not given stays.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{id::ContainerId, limits};
use containerd_shim_protos::api::UpdateTaskRequest;
use protobuf::well_known_types::any::Any;
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    api::{
        client::bounded,
        container::{Container, not_running, refused},
    },
    container::status::Status,
    error::Error,
    spec,
};

/// How containerd names the type.
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// Change the limits of a container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File with a `linux.resources` object as JSON, or `-` for standard input; instead of flags
    #[arg(short, long, value_name = "FILE", conflicts_with = "Limits")]
    resources: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

/// Sizes are bytes, or a number with k, m, g or t; -1 is no limit.
#[derive(Debug, clap::Args)]
struct Limits {
    /// Memory limit, in bytes or with k, m, g, t
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Memory that is reclaimed last, in bytes or with k, m, g, t
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Limit of memory and swap together; needs --memory
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Accepted; cgroup2 has no limit of its own for it
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    kernel_memory: Option<i64>,
    /// Accepted; cgroup2 has no limit of its own for it
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<i64>,
    /// CPU time per period, in microseconds; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Time saved up beyond the quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Relative weight, 1024 being the default
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Realtime period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Realtime per period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1: run only when nothing else wants the CPU
    #[arg(long, value_name = "0 or 1", allow_hyphen_values = true)]
    cpu_idle: Option<i64>,
    /// CPUs of the host to run on: 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes of the host to use: 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id.parse()?;
        self.update(context, &id).map_err(|error| error.during(format!("update {id}")))?;
        Ok(0)
    }

    fn update(&self, context: &Context, id: &ContainerId) -> Result<(), Error> {
        let json = match &self.resources {
            Some(path) => read(path)?,
            None => self.limits.json(),
        };
        // Refused here as well as in the server: the warnings are for whoever asks.
        let update = spec::parse_update(&json)?;
        for warning in &update.warnings {
            context.log.warn(warning);
        }
        let container = Container::open(&context.root, id)?;
        if let Some(sandbox) = &container.sandbox
            && !container.hosts_sandbox()
        {
            let host = sandbox.record.host_container.as_ref().map(ContainerId::as_str);
            for warning in update.host.lost_in(host.unwrap_or(sandbox.dir.id().as_str())) {
                context.log.warn(&warning);
            }
        }
        if container.status()? == Status::Stopped {
            return Err(not_running().into());
        }
        let resources = Any { type_url: RESOURCES.to_owned(), value: json, ..Default::default() };
        let request =
            UpdateTaskRequest { id: id.to_string(), resources: Some(resources).into(), ..Default::default() };
        let updated = container.call(async |server| server.task.update(bounded(), &request).await);
        updated.map(drop).map_err(|error| refused(error).into())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    if path.as_os_str() != "-" {
        return Ok(spec::read_capped(path)?);
    }
    let mut bytes = Vec::new();
    let most = limits::CONTAINER_SPEC as u64;
    std::io::stdin()
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read the resources from standard input", e))?;
    if bytes.len() as u64 > most {
        let message = format!("the resources on standard input are more than {most} bytes");
        return Err(Error::Usage { message, hint: None });
    }
    Ok(bytes)
}

impl Limits {
    /// As `linux.resources` has it.
    fn json(&self) -> Vec<u8> {
        let part = |fields: &[(&str, Value)]| -> Map<String, Value> {
            let given = fields.iter().filter(|(_, value)| !value.is_null());
            given.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let memory = part(&[
            ("limit", json!(self.memory)),
            ("reservation", json!(self.memory_reservation)),
            ("swap", json!(self.memory_swap)),
            ("kernel", json!(self.kernel_memory)),
            ("kernelTCP", json!(self.kernel_memory_tcp)),
        ]);
        let cpu = part(&[
            ("quota", json!(self.cpu_quota)),
            ("period", json!(self.cpu_period)),
            ("burst", json!(self.cpu_burst)),
            ("shares", json!(self.cpu_share)),
            ("realtimePeriod", json!(self.cpu_rt_period)),
            ("realtimeRuntime", json!(self.cpu_rt_runtime)),
            ("idle", json!(self.cpu_idle)),
            ("cpus", json!(self.cpuset_cpus)),
            ("mems", json!(self.cpuset_mems)),
        ]);
        let resources = json!({
            "memory": memory,
            "cpu": cpu,
            "pids": part(&[("limit", json!(self.pids_limit))]),
            "blockIO": part(&[("weight", json!(self.blkio_weight))]),
        });
        resources.to_string().into_bytes()
    }
}

/// `-1`, `4096`, `512m`, `1GiB`.
fn size(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("{text:?} is not a size: a number, with k, m, g or t")),
    };
    let number: i64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
    match number {
        -1 if shift == 0 => Ok(-1),
        0.. => number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large")),
        _ => Err(format!("{text:?} is negative (-1 is no limit)")),
    }
}

#[cfg(test)]
mod tests;
