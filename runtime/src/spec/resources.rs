//! `linux.resources` in terms of cgroup2: what runc would write there, since callers still speak cgroup1.
//!
//! In these fields 0 has long meant "not set" and -1 "no limit", except for pids, where 0 is a limit. Keys that only
//! cgroup1 had are refused when they would have changed what the container may do, and warned about otherwise.

use std::collections::BTreeMap;

use bulkhead_protocol::container::{DeviceNode, Limit, Resources};

use super::{
    SpecError, devices,
    host_limits::{self, HostLimits, io_weight},
    process::refuse_nul,
    raw,
};

/// Controllers of cgroup2: a key of `unified` starts with one of these and a dot.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];
/// Bytes that a cgroup file takes in one write.
const UNIFIED_VALUE_MAX: usize = 4096;
/// Page sizes of x86_64, as cgroup2 writes them. Whether a guest has 1 GiB pages depends on the CPU, so the agent decides.
const PAGE_SIZES: [&str; 2] = ["2MB", "1GB"];

/// What the guest keeps, and what the host keeps. `nodes` are the container's devices, which the rules may name.
pub(super) fn parse(
    raw: &raw::Resources,
    nodes: &[DeviceNode],
    warnings: &mut Vec<String>,
) -> Result<(Resources, HostLimits), SpecError> {
    let refused = [
        ("network", &raw.network, "network classes and priorities exist only with cgroup1"),
        ("rdma", &raw.rdma, "the microVM has no RDMA devices"),
    ];
    for (name, value, reason) in refused {
        if raw::asks_for_something(value.as_ref()) {
            let field = format!("linux.resources.{name}");
            return Err(SpecError::Refused { field, reason: reason.into() });
        }
    }
    let mut resources =
        Resources { devices: devices::rules(&raw.devices, nodes, warnings)?, ..Resources::default() };
    memory(&raw.memory, &mut resources, warnings)?;
    cpu(&raw.cpu, &mut resources)?;
    resources.pids_max = match raw.pids.limit {
        None => None,
        Some(limit) => Some(limit_of("linux.resources.pids.limit", limit)?),
    };
    resources.hugetlb_max = hugetlb(&raw.hugepage_limits)?;
    resources.unified = unified(&raw.unified)?;
    let mut host = HostLimits {
        cpu_weight: resources.cpu_weight,
        cpu_idle: resources.cpu_idle,
        ..HostLimits::default()
    };
    host_limits::cpu(&raw.cpu, &mut host)?;
    host_limits::block_io(&raw.block_io, &mut host)?;
    resources.io_weight = host.io_weight.map(|weight| io_weight(weight.into()));
    Ok((resources, host))
}

fn memory(raw: &raw::Memory, resources: &mut Resources, warnings: &mut Vec<String>) -> Result<(), SpecError> {
    let field = |name: &str| format!("linux.resources.memory.{name}");
    if raw.disable_oom_killer == Some(true) {
        let reason = "cgroup2 cannot disable the OOM killer".to_owned();
        return Err(SpecError::Refused { field: field("disableOOMKiller"), reason });
    }
    let obsolete = [
        ("kernel", asks_for_limit(raw.kernel)),
        ("kernelTCP", asks_for_limit(raw.kernel_tcp)),
        ("swappiness", raw.swappiness.is_some()),
    ];
    for (name, _) in obsolete.iter().filter(|(_, given)| *given) {
        warnings.push(format!("{} has no meaning with cgroup2", field(name)));
    }
    let set = |name: &str, value: Option<i64>| {
        value.filter(|value| *value != 0).map(|value| limit_of(&field(name), value)).transpose()
    };
    resources.memory_check_before_update = raw.check_before_update;
    resources.memory_max = set("limit", raw.limit)?;
    resources.memory_low = set("reservation", raw.reservation)?;
    // The spec's swap is memory and swap together, the file's is swap alone.
    resources.memory_swap_max = match (set("swap", raw.swap)?, resources.memory_max) {
        (Some(Limit::Max), _) | (None, Some(Limit::Max)) => Some(Limit::Max),
        (None, _) => None,
        (Some(Limit::Value(both)), Some(Limit::Value(memory))) => {
            let swap = both.checked_sub(memory).ok_or_else(|| {
                let reason = format!("{both} is below memory.limit {memory}, which it includes");
                SpecError::Invalid { field: field("swap"), reason }
            })?;
            Some(Limit::Value(swap))
        }
        (Some(Limit::Value(_)), None | Some(Limit::Max)) => {
            let reason = "needs memory.limit, which it includes".to_owned();
            return Err(SpecError::Invalid { field: field("swap"), reason });
        }
    };
    Ok(())
}

fn cpu(raw: &raw::Cpu, resources: &mut Resources) -> Result<(), SpecError> {
    let field = |name: &str| format!("linux.resources.cpu.{name}");
    let realtime = [
        ("realtimeRuntime", asks_for_limit(raw.realtime_runtime)),
        ("realtimePeriod", raw.realtime_period.is_some_and(|value| value != 0)),
    ];
    if let Some((name, _)) = realtime.iter().find(|(_, given)| *given) {
        let reason = "cgroup2 has no limits for realtime processes".to_owned();
        return Err(SpecError::Refused { field: field(name), reason });
    }
    resources.cpu_weight = raw.shares.filter(|shares| *shares != 0).map(weight_of);
    let quota = raw.quota.filter(|quota| *quota != 0);
    // Any negative quota is none, as the kernel's file of cgroup1 has it.
    resources.cpu_quota = quota.map(|quota| u64::try_from(quota).map_or(Limit::Max, Limit::Value));
    resources.cpu_period = raw.period.filter(|period| *period != 0);
    resources.cpu_burst = raw.burst;
    resources.cpu_idle = match raw.idle {
        None => None,
        Some(idle @ (0 | 1)) => Some(idle == 1),
        Some(other) => {
            return Err(SpecError::Invalid {
                field: field("idle"),
                reason: format!("{other} is neither 0 nor 1"),
            });
        }
    };
    Ok(())
}

/// Neither "not set" nor "no limit".
fn asks_for_limit(value: Option<i64>) -> bool {
    value.is_some_and(|value| !matches!(value, 0 | -1))
}

fn limit_of(field: &str, value: i64) -> Result<Limit, SpecError> {
    match u64::try_from(value) {
        Ok(value) => Ok(Limit::Value(value)),
        Err(_) if value == -1 => Ok(Limit::Max),
        Err(_) => Err(SpecError::Invalid {
            field: field.to_owned(),
            reason: format!("{value} is negative (-1 is no limit)"),
        }),
    }
}

/// cpu.weight (1 to 10000) for cgroup1 shares (2 to 262144): runc's formula since 1.3.2, quadratic in the logarithm,
/// so that the defaults of both, 1024 and 100, meet. The older linear one gave 39 for 1024.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn weight_of(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

fn hugetlb(raw: &[raw::HugepageLimit]) -> Result<BTreeMap<String, Limit>, SpecError> {
    let mut limits = BTreeMap::new();
    for (index, entry) in raw.iter().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{index}].pageSize");
        if !PAGE_SIZES.contains(&entry.page_size.as_str()) {
            let reason = format!("{:?} is not one of {}", entry.page_size, PAGE_SIZES.join(", "));
            return Err(SpecError::Invalid { field, reason });
        }
        if limits.insert(entry.page_size.clone(), Limit::Value(entry.limit)).is_some() {
            return Err(SpecError::Invalid { field, reason: format!("{} is given twice", entry.page_size) });
        }
    }
    Ok(limits)
}

/// Keys become file names in the guest, so a slash or a file of the hierarchy itself must not pass.
fn unified(raw: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, SpecError> {
    for (key, value) in raw {
        let field = || format!("linux.resources.unified[{key:?}]");
        let plain =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let known = key.split_once('.').is_some_and(|(controller, file)| {
            CONTROLLERS.contains(&controller) && !file.is_empty() && plain(file)
        });
        if !known {
            let reason = format!("is not a file of a controller ({})", CONTROLLERS.join(", "));
            return Err(SpecError::Invalid { field: field(), reason });
        }
        refuse_nul(value, field)?;
        if value.len() > UNIFIED_VALUE_MAX {
            let reason = format!("{} bytes are more than {UNIFIED_VALUE_MAX}", value.len());
            return Err(SpecError::Invalid { field: field(), reason });
        }
    }
    Ok(raw.clone())
}

#[cfg(test)]
mod tests;
