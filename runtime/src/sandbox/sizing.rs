//! How large a microVM is made, and from what: the bundle's wishes and limits inside of what the operator allows.
//!
//!   vm.hwConfig ─▶ annotations ─▶ limit + overhead, ceil(quota / period), cpus ─▶ configuration     the first given
//!
//! A pod's machine is made for the pod's limits, where CRI tells them, and its containers find room in it.
//!
//! A machine whose container has no memory limit grows by itself, step by step (`grown`, `pressure`).
//!
//! A wish beyond the operator's bounds is refused by its JSON path; a limit beyond them is no wish for a machine of that
//! size, so the machine is made as large as allowed, with a warning. `docs/sizing.md` says how the overhead was measured.

use std::path::PathBuf;

use bulkhead_protocol::{
    container::{ContainerSpec, Limit, Resources},
    cpu_list::CpuList,
    limits,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    spec::{ANNOTATIONS, Hardware, HostLimits, PodLimits, SpecError, Vm},
};

const MIB: u64 = 1 << 20;
/// What the guest needs beside its containers: kernel, agent, page tables, and room to reclaim before the guest as a
/// whole is out of memory.
const OVERHEAD_MIB: u64 = 64;
/// One part in this many of what is added to that, for the kernel's records of each page.
const OVERHEAD_SHARE: u64 = 32;
/// What a machine that grows by itself gets at once, at most: the guest needs memory for the records of what it is given.
const STEP_MIB: u32 = 4096;
/// Less is not worth the asking.
const LEAST_STEP_MIB: u32 = 32;
/// CFS's, when a quota comes without.
const DEFAULT_PERIOD: u64 = 100_000;

/// vCPUs that the guest's kernel starts. The agent brings the others online while the first container is made.
pub(crate) const BOOT_VCPUS: u8 = 1;

/// A machine's sizes: at boot, and what it may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    pub memory_mib: u32,
    pub max_memory_mib: u32,
    pub vcpus: u8,
    pub max_vcpus: u8,
    /// What its memory grows to by itself while a container has no limit: no further where the bundle chose its size.
    pub grows_to_mib: u32,
    /// Inodes and open files of the guest: by the memory of the boot, or by what it grows to by itself.
    pub files: u64,
}

/// Whether tmpfs volumes of the host may count, which fill memory without being the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Every container has a limit, which a file in a tmpfs counts against with other runtimes too: the machine bounds it.
    Limited,
    /// At least one has none: only the most that the operator gives a machine bounds it.
    Unlimited,
}

/// The limits of a container that its machine is sized by; `None` where it has none, or where an update leaves them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    memory: Option<Limit>,
    quota: Option<Limit>,
    period: Option<u64>,
    /// CPUs of the host that it may use.
    cpus: Option<u32>,
    /// Of a pod: those of its containers are parts of it.
    pod: bool,
}

impl Demand {
    /// Of a new container. One that runs nothing holds a pod, and has no limits but the pod's.
    pub fn of_new(guest: &ContainerSpec, pod: &PodLimits, host: &HostLimits) -> Self {
        let of_container = Self::of(&guest.resources, host);
        if !guest.pauses {
            return of_container;
        }
        let PodLimits { memory, cpu_quota: quota, cpu_period: period } = *pod;
        Self { memory, quota, period, pod: true, ..of_container }
    }

    pub fn of(resources: &Resources, host: &HostLimits) -> Self {
        Self {
            memory: resources.memory_max,
            quota: resources.cpu_quota,
            period: resources.cpu_period,
            cpus: host.cpus.as_ref().map(CpuList::count),
            pod: false,
        }
    }

    /// Whether the container's memory is limited.
    pub fn memory(self) -> Memory {
        if value(self.memory).is_some() { Memory::Limited } else { Memory::Unlimited }
    }

    /// As an update.
    pub(crate) fn takes_memory_limit_away(self) -> bool {
        self.memory == Some(Limit::Max)
    }

    /// What holds after an update.
    #[must_use]
    pub fn updated(self, update: Self) -> Self {
        Self {
            memory: update.memory.or(self.memory),
            quota: update.quota.or(self.quota),
            period: update.period.or(self.period),
            cpus: update.cpus.or(self.cpus),
            pod: self.pod,
        }
    }

    /// What a machine of this size needs in addition, where some container has no limit: memory beside that of the others,
    /// CPUs with them.
    pub(crate) fn beside(self, memory_mib: u32, vcpus: u8) -> Need {
        let more = value(self.memory).map_or(0, with_records);
        let cpus = self.cpu_thousandths().map_or(0, |thousandths| saturated(thousandths.div_ceil(1000)));
        Need {
            memory_mib: Some(saturated(u64::from(memory_mib).saturating_add(more))),
            vcpus: Some(cpus.max(vcpus.into())),
        }
    }

    /// CPUs that the quota and the host's CPUs let the container use, in thousandths.
    fn cpu_thousandths(self) -> Option<u64> {
        let period = self.period.unwrap_or(DEFAULT_PERIOD).max(1);
        let quota = value(self.quota).map(|quota| quota.saturating_mul(1000).div_ceil(period));
        let cpus = self.cpus.map(|count| u64::from(count) * 1000);
        quota.into_iter().chain(cpus).min()
    }
}

/// What containers need of a machine; `None` where they set no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    pub memory_mib: Option<u32>,
    pub vcpus: Option<u32>,
}

impl Need {
    /// Of all containers of a sandbox together, and never less than the pod's own limits: a single container without a limit
    /// leaves the sandbox without.
    pub fn of(demands: impl IntoIterator<Item = Demand>) -> Self {
        let (pod, containers): (Vec<_>, Vec<_>) = demands.into_iter().partition(|demand| demand.pod);
        let pod = pod.first().copied();
        let all = |limit: fn(&Demand) -> Option<u64>| {
            let of_pod = pod.as_ref().and_then(limit);
            if containers.is_empty() {
                return of_pod;
            }
            let sum =
                containers.iter().try_fold(0, |sum: u64, demand| Some(sum.saturating_add(limit(demand)?)));
            sum.map(|sum| sum.max(of_pod.unwrap_or(0)))
        };
        Self {
            memory_mib: all(|demand| value(demand.memory)).map(with_overhead),
            vcpus: all(|demand| demand.cpu_thousandths())
                .map(|thousandths| saturated(thousandths.div_ceil(1000)).max(1)),
        }
    }

    /// This, and the other where this says nothing.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        Self { memory_mib: self.memory_mib.or(other.memory_mib), vcpus: self.vcpus.or(other.vcpus) }
    }

    /// Only in what an update changes: the rest of the machine may come from a wish of the bundle.
    #[must_use]
    pub fn changed_by(self, update: Demand) -> Self {
        let cpu = update.quota.is_some() || update.period.is_some() || update.cpus.is_some();
        Self {
            memory_mib: if update.memory.is_some() { self.memory_mib } else { None },
            vcpus: if cpu { self.vcpus } else { None },
        }
    }
}

fn value(limit: Option<Limit>) -> Option<u64> {
    match limit {
        Some(Limit::Value(value)) => Some(value),
        Some(Limit::Max) | None => None,
    }
}

/// The machine for containers that may use `limit` bytes, in MiB.
fn with_overhead(limit: u64) -> u32 {
    saturated(with_records(limit).saturating_add(OVERHEAD_MIB))
}

/// `limit` and what the kernel keeps of so many pages, in MiB.
fn with_records(limit: u64) -> u64 {
    let limit = limit.div_ceil(MIB);
    limit.saturating_add(limit / OVERHEAD_SHARE)
}

fn saturated(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The sizes of a new sandbox for its first container, or for the pod that it holds.
///
/// # Errors
/// A wish that the configuration does not allow, by its JSON path.
pub fn sizes(
    config: &Config,
    vm: &Vm,
    demand: Demand,
    warnings: &mut Vec<String>,
) -> Result<Sizes, SpecError> {
    check_annotations(config, vm)?;
    let need = Need::of([demand]);
    let [memory_limit, cpu_limit] = if demand.pod { POD_LIMITS } else { LIMITS };
    let (least, most) = (*limits::MEMORY_MIB.start(), config.max_memory_mib);
    let wished = wish(vm, |hardware| hardware.memory_mib, MEMORY_FIELDS);
    let memory_mib = match wished {
        Some((mib, _)) if (least..=most).contains(&mib) => mib,
        Some((mib, field)) => return Err(out_of_bounds(field, "MiB", mib, least, most, "max_memory_mib")),
        None => need.memory_mib.map_or(config.memory_mib, |mib| {
            if mib > most {
                warnings.push(format!(
                    "{memory_limit} wants a microVM of {mib} MiB, max_memory_mib allows {most}"
                ));
            }
            mib.clamp(least, most)
        }),
    };
    let grows_to_mib = if wished.is_some() { memory_mib } else { config.max_memory_mib };
    let files = match demand.memory() {
        // Of a pod a container may still come that has no limit.
        Memory::Limited if !demand.pod => memory_mib,
        Memory::Limited | Memory::Unlimited => grows_to_mib,
    };
    let most = u32::from(config.max_vcpus);
    let vcpus = match wish(vm, |hardware| hardware.vcpus, VCPU_FIELDS) {
        Some((count, _)) if (1..=most).contains(&count) => count,
        Some((count, field)) => return Err(out_of_bounds(field, "vCPUs", count, 1, most, "max_vcpus")),
        None => need.vcpus.map_or(u32::from(config.vcpus), |count| {
            if count > most {
                warnings
                    .push(format!("{cpu_limit} wants a microVM of {count} vCPUs, max_vcpus allows {most}"));
            }
            count.min(most)
        }),
    };
    Ok(Sizes {
        memory_mib,
        max_memory_mib: config.max_memory_mib,
        // At most max_vcpus, which is a u8.
        vcpus: u8::try_from(vcpus).unwrap_or(config.max_vcpus),
        max_vcpus: config.max_vcpus,
        grows_to_mib,
        files: limits::files(files),
    })
}

/// The next size of a machine of `now` whose containers have not enough: twice as large, within its bound and what the host
/// has left. `None` when that is hardly more. All in MiB.
pub(crate) fn grown(now: u32, most: u32, room: u64) -> Option<u32> {
    let step = now.clamp(LEAST_STEP_MIB, STEP_MIB).min(most.saturating_sub(now)).min(saturated(room));
    (step >= LEAST_STEP_MIB || (step > 0 && now + step == most)).then(|| now + step)
}

/// Where limits come from: of memory, and of CPU time.
const LIMITS: [&str; 2] = ["linux.resources.memory.limit", "linux.resources.cpu"];
const POD_LIMITS: [&str; 2] = ["the pod's memory limit", "the pod's CPU limit"];

/// Where a wish comes from: the spec's object, then our annotation.
const MEMORY_FIELDS: [&str; 2] = ["vm.hwConfig.memory", "annotations[\"org.bulkhead.vm.memory-mib\"]"];
const VCPU_FIELDS: [&str; 2] = ["vm.hwConfig.vcpus", "annotations[\"org.bulkhead.vm.vcpus\"]"];

fn wish(
    vm: &Vm,
    value: impl Fn(&Hardware) -> Option<u32>,
    [hardware, annotation]: [&'static str; 2],
) -> Option<(u32, &'static str)> {
    let hardware = value(&vm.hardware).map(|value| (value, hardware));
    hardware.or_else(|| value(&vm.annotated).map(|value| (value, annotation)))
}

fn out_of_bounds(field: &str, unit: &str, wanted: u32, least: u32, most: u32, key: &str) -> SpecError {
    let reason = format!("{wanted} {unit} are not between {least} and {most}, {key} of the configuration");
    SpecError::Invalid { field: field.into(), reason }
}

fn check_annotations(config: &Config, vm: &Vm) -> Result<(), SpecError> {
    // In the order of ANNOTATIONS.
    let given = [vm.annotated.memory_mib.is_some(), vm.annotated.vcpus.is_some()];
    let refused = given
        .into_iter()
        .zip(ANNOTATIONS)
        .find(|(given, name)| *given && !config.allowed_annotations.iter().any(|allowed| allowed == name));
    match refused {
        Some((_, name)) => Err(SpecError::Refused {
            field: format!("annotations[{name:?}]"),
            reason: "allowed_annotations of the configuration does not name it".into(),
        }),
        None => Ok(()),
    }
}

/// The configuration with the bundle's own VMM, kernel and image, where it is allowed to have them.
///
/// # Errors
/// A path that the configuration does not name.
pub fn artefacts(mut config: Config, vm: &Vm) -> Result<Config, SpecError> {
    let chosen = |wanted: &Option<PathBuf>, own: &PathBuf, allowed: &[PathBuf], field: &str, key: &str| {
        let Some(path) = wanted else { return Ok(own.clone()) };
        if path == own || allowed.contains(path) {
            return Ok(path.clone());
        }
        let reason = format!("{} is not in {key} of the configuration", path.display());
        Err(SpecError::Refused { field: field.into(), reason })
    };
    config.vmm =
        chosen(&vm.hypervisor, &config.vmm, &config.allowed_vmms, "vm.hypervisor.path", "allowed_vmms")?;
    config.kernel =
        chosen(&vm.kernel, &config.kernel, &config.allowed_kernels, "vm.kernel.path", "allowed_kernels")?;
    config.initramfs = chosen(
        &vm.initrd,
        &config.initramfs,
        &config.allowed_initramfs,
        "vm.kernel.initrd",
        "allowed_initramfs",
    )?;
    Ok(config)
}

#[cfg(test)]
mod tests;
