//! Limits of a microVM as a whole, as files of its host cgroup.
//!
//!   HostLimits ─check()─▶ what this host can keep ─set()─▶ files, each value one write ─▶ Earlier: what they said before
//!
//! There is no cpu.max and no memory.max among them: the container's own hold in the guest, and whoever throttles a vCPU
//! stops the agent as well; those of the pod follow its machine (`bounds`). What was asked for and cannot hold is refused by its JSON path; where only
//! a weight is lost, which bounds nothing, a warning does.

use std::{fs, io, path::Path};

use bulkhead_protocol::cpu_list::CpuList;
use bulkhead_sys::cgroup_file::{self, Earlier};

use super::CgroupError;
use crate::{
    log::note,
    spec::{DeviceLimit, DeviceLimitKind, HostLimits, SpecError, io_weight},
};

const CPUS: &str = "linux.resources.cpu.cpus";
const MEMS: &str = "linux.resources.cpu.mems";
const SHARES: &str = "linux.resources.cpu.shares";
const IDLE: &str = "linux.resources.cpu.idle";
const IO_WEIGHT: &str = "linux.resources.blockIO.weight";

/// Whether a host can keep `limits` in the cgroup at `path`, which need not exist yet. What it cannot, and does not
/// matter as much, is warned about.
///
/// # Errors
/// CPUs or nodes that the host does not have, or a limit whose controller is not there.
pub fn check(path: Option<&Path>, limits: &HostLimits) -> Result<Vec<String>, SpecError> {
    // Its own files say what it has now, those above what it may have.
    let above: Vec<&Path> = path.into_iter().flat_map(|path| path.ancestors().skip(1)).collect();
    let read = |file: &str| above.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok());
    let controllers = read("cgroup.controllers").unwrap_or_default();
    let has = |controller: &str| controllers.split_whitespace().any(|name| name == controller);
    let lacks = |controller: &str| match path {
        Some(_) => format!("the host gives its cgroup no {controller} controller"),
        None => "it has no cgroup on the host".to_owned(),
    };
    let sets = [(CPUS, "cpuset.cpus.effective", &limits.cpus), (MEMS, "cpuset.mems.effective", &limits.mems)];
    for (field, file, wanted) in sets {
        let Some(wanted) = wanted else { continue };
        let available = if has("cpuset") { read(file) } else { None };
        let Some(available) = available.and_then(|list| CpuList::try_from(list).ok()) else {
            return Err(SpecError::Refused { field: field.into(), reason: lacks("cpuset") });
        };
        if let Some(number) = wanted.first_beyond(&available) {
            let reason = format!("{number} is not one of the host's, {available}");
            return Err(SpecError::Invalid { field: field.into(), reason });
        }
    }
    if let Some(throttle) = limits.throttles.first()
        && !has("io")
    {
        return Err(SpecError::Refused { field: throttle.field.clone(), reason: lacks("io") });
    }
    let weights = [
        (SHARES, "cpu", limits.cpu_weight.is_some()),
        (IDLE, "cpu", limits.cpu_idle.is_some()),
        (IO_WEIGHT, "io", limits.io_weight.is_some()),
    ];
    let of_devices = limits.device_weights.iter().map(|weight| (weight.field.as_str(), "io", true));
    let lost = weights.into_iter().chain(of_devices).filter(|(_, name, given)| *given && !has(name));
    Ok(lost.map(|(field, name, _)| format!("{field} does not hold on the host: {}", lacks(name))).collect())
}

/// How many CPUs a cgroup at `path`, which need not exist yet, may use by those above it. `None` where none says so.
pub fn cpus_above(path: &Path) -> Option<u32> {
    let mut above = path.ancestors().skip(1);
    let text = above.find_map(|dir| fs::read_to_string(dir.join("cpuset.cpus.effective")).ok())?;
    CpuList::try_from(text).ok().map(|cpus| cpus.count())
}

/// Writes back what files said before. The error that led here is the one to report, so what fails is noted.
pub fn set_back(earlier: Earlier) {
    for left in earlier.restore() {
        note(&left.to_string());
    }
}

/// Sets all limits that are given, or none.
///
/// # Errors
/// What the kernel refuses, by its JSON path.
pub fn set(directory: &Path, limits: &HostLimits) -> Result<Earlier, CgroupError> {
    let mut earlier = Earlier::new(directory);
    for Setting { field, file, value, needed } in settings(directory, limits) {
        let done = earlier.remember(file, &value).and_then(|()| cgroup_file::write(directory, file, &value));
        match done {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => {
                note(&format!("{field} does not hold on the host: its cgroup has no {file}"));
            }
            Err(source) => {
                set_back(earlier);
                return Err(CgroupError::Limit { field: field.to_owned(), file, value, source });
            }
        }
    }
    Ok(earlier)
}

struct Setting<'a> {
    field: &'a str,
    file: &'static str,
    value: String,
    /// Refused where the file is not there.
    needed: bool,
}

/// The values to write, in order.
fn settings<'a>(directory: &Path, limits: &'a HostLimits) -> Vec<Setting<'a>> {
    let mut settings = Vec::new();
    let mut add = |field: &'a str, file, value: Option<String>, needed| {
        settings.extend(value.map(|value| Setting { field, file, value, needed }));
    };
    add(IDLE, "cpu.idle", limits.cpu_idle.map(|idle| u8::from(idle).to_string()), false);
    // An idle group has no weight, and refuses one.
    let weight = if limits.cpu_idle == Some(true) { None } else { limits.cpu_weight };
    add(SHARES, "cpu.weight", weight.map(|weight| weight.to_string()), false);
    add(CPUS, "cpuset.cpus", limits.cpus.as_ref().map(CpuList::to_string), true);
    add(MEMS, "cpuset.mems", limits.mems.as_ref().map(CpuList::to_string), true);
    // As runc: BFQ's, which has the spec's scale, where it is there.
    let bfq = directory.join("io.bfq.weight").exists();
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    let scaled = |weight| if bfq { weight } else { io_weight(weight) };
    add(IO_WEIGHT, file, limits.io_weight.map(|weight| scaled(weight.into()).to_string()), false);
    for limit in &limits.device_weights {
        let value = format!("{} {}", device(limit), scaled(limit.value));
        add(&limit.field, file, Some(value), false);
    }
    for limit in &limits.throttles {
        add(&limit.field, "io.max", Some(io_max(limit)), true);
    }
    settings
}

fn device(limit: &DeviceLimit) -> String {
    format!("{}:{}", limit.major, limit.minor)
}

fn io_max(limit: &DeviceLimit) -> String {
    let key = match limit.kind {
        DeviceLimitKind::Weight => "weight",
        DeviceLimitKind::ReadBytes => "rbps",
        DeviceLimitKind::WriteBytes => "wbps",
        DeviceLimitKind::ReadOperations => "riops",
        DeviceLimitKind::WriteOperations => "wiops",
    };
    match limit.value {
        // The kernel takes no 0.
        0 => format!("{} {key}=max", device(limit)),
        rate => format!("{} {key}={rate}", device(limit)),
    }
}

#[cfg(test)]
mod tests;
