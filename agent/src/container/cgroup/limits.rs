//! Limits as files of a cgroup: which, with what value, in what order; written at once or taken back together.
//!
//!   Resources ─files()─▶ (file, value) … ─write()───▶ a new cgroup, which goes away when that fails
//!                                        ─replace()─▶ one in use: earlier values are read first, restored after a failure
//!
//! Refused by their JSON path are the limits that the host could not check: sizes of pages.

use std::{fs, path::Path};

use bulkhead_protocol::container::{Limit, Resources};
use bulkhead_sys::cgroup_file::{self, Earlier};

use crate::container::error::{ContainerError, During};

type Setting = (String, String);

/// Sets the limits of a cgroup that nobody relies on yet.
pub(super) fn write(directory: &Path, resources: &Resources) -> Result<(), ContainerError> {
    let settings = settings(directory, resources)?;
    settings.iter().try_for_each(|setting| set(directory, setting))
}

/// Changes limits, or none of them.
pub(super) fn replace(directory: &Path, resources: &Resources) -> Result<(), ContainerError> {
    if resources.memory_check_before_update {
        check_memory_in_use(directory, resources.memory_max)?;
    }
    let settings = settings(directory, resources)?;
    // All of them before the first change: a file that cannot be read is one that cannot be set back.
    let mut earlier = Earlier::new(directory);
    for (file, value) in &settings {
        earlier.remember(file, value).during("read limit", file)?;
    }
    let done = settings.iter().try_for_each(|setting| set(directory, setting));
    if done.is_err() {
        for left in earlier.restore() {
            crate::say!("{left}");
        }
    }
    done
}

fn settings(directory: &Path, resources: &Resources) -> Result<Vec<Setting>, ContainerError> {
    for size in resources.hugetlb_max.keys() {
        if !plain(size) || !directory.join(format!("hugetlb.{size}.max")).exists() {
            return Err(ContainerError::refused(format_args!(
                "linux.resources.hugepageLimits: the microVM has no huge pages of {size}"
            )));
        }
    }
    // A period alone keeps the quota, which the kernel's file cannot say.
    let quota = match (resources.cpu_quota, resources.cpu_period) {
        (None, Some(_)) => {
            let now = fs::read_to_string(directory.join("cpu.max")).during("read limit", "cpu.max")?;
            now.split_whitespace().next().map(str::to_owned)
        }
        (quota, _) => quota.map(text),
    };
    files(resources, quota.as_deref())
}

/// The files to write, in order, with cpu.max as given by `quota`. Refuses what would leave the directory.
fn files(resources: &Resources, quota: Option<&str>) -> Result<Vec<Setting>, ContainerError> {
    let mut files: Vec<(&str, String)> = Vec::new();
    let mut add = |file, value: Option<String>| files.extend(value.map(|value| (file, value)));
    // Swap first: lowering memory.max may need room there.
    add("memory.swap.max", resources.memory_swap_max.map(text));
    add("memory.max", resources.memory_max.map(text));
    add("memory.low", resources.memory_low.map(text));
    match resources.cpu_idle {
        // An idle group has no weight, and refuses one.
        Some(true) => add("cpu.idle", Some("1".to_owned())),
        idle => {
            add("cpu.idle", idle.map(|_| "0".to_owned()));
            add("cpu.weight", resources.cpu_weight.map(|weight| weight.to_string()));
        }
    }
    // A burst is at most the quota, before and after: it steps aside while that changes.
    let burst = resources.cpu_burst.map(|burst| burst.to_string());
    if burst.is_some() && quota.is_some() {
        add("cpu.max.burst", Some("0".to_owned()));
    }
    add(
        "cpu.max",
        quota.map(|quota| match resources.cpu_period {
            Some(period) => format!("{quota} {period}"),
            None => quota.to_owned(),
        }),
    );
    add("cpu.max.burst", burst);
    add("pids.max", resources.pids_max.map(text));
    add("io.weight", resources.io_weight.map(|weight| weight.to_string()));
    let mut files: Vec<_> = files.into_iter().map(|(file, value)| (file.to_owned(), value)).collect();
    for (size, limit) in &resources.hugetlb_max {
        // In use, and promised to mappings that have not touched them yet.
        for file in ["max", "rsvd.max"] {
            files.push((format!("hugetlb.{size}.{file}"), text(*limit)));
        }
    }
    for (file, value) in &resources.unified {
        let (controller, rest) = file.split_once('.').unwrap_or_default();
        // The core's own files (cgroup.procs and the like) move and kill processes: not limits.
        if controller.is_empty() || rest.is_empty() || controller == "cgroup" || !plain(file) {
            return Err(ContainerError::refused(format_args!(
                "linux.resources.unified: {file:?} is not a file of a cgroup controller"
            )));
        }
        files.push((file.clone(), value.clone()));
    }
    Ok(files)
}

fn plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn text(limit: Limit) -> String {
    match limit {
        Limit::Max => "max".to_owned(),
        Limit::Value(value) => value.to_string(),
    }
}

fn check_memory_in_use(directory: &Path, limit: Option<Limit>) -> Result<(), ContainerError> {
    const FILE: &str = "memory.current";
    let Some(Limit::Value(limit)) = limit else { return Ok(()) };
    let current = fs::read_to_string(directory.join(FILE)).during("read", FILE)?;
    let current: u64 = current.trim().parse().map_err(|_| "it is no number").during("read", FILE)?;
    if current <= limit {
        return Ok(());
    }
    Err(ContainerError::refused(format_args!(
        "linux.resources.memory.limit: {limit} bytes are less than the {current} in use, and checkBeforeUpdate is set"
    )))
}

fn set(directory: &Path, (file, value): &Setting) -> Result<(), ContainerError> {
    cgroup_file::write(directory, file, value).during("set limit", format_args!("{file} to {value}"))
}

#[cfg(test)]
mod tests;
