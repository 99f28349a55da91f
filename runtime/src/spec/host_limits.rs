//! Limits of `linux.resources` for a microVM as a whole, by the numbers of the host: its CPUs, its nodes, its disks.
//!
//! The guest has vCPUs and no disks, so it cannot keep them; the host's cgroup, in which the VMM is, can. Shares and
//! `idle` hold in both: in the guest between the containers of a pod, on the host between pods.

use bulkhead_protocol::cpu_list::CpuList;
use serde::{Deserialize, Serialize};

use super::{SpecError, raw};

/// Entries in one list of devices.
const DEVICES_MAX: usize = 32;
/// Of the spec and of `io.bfq.weight`; `io.weight` has others.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// What is `None`, or not in a list, stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLimits {
    /// cpu.weight, 1 to 10000.
    pub cpu_weight: Option<u64>,
    pub cpu_idle: Option<bool>,
    pub cpus: Option<CpuList>,
    pub mems: Option<CpuList>,
    /// 10 to 1000.
    pub io_weight: Option<u16>,
    pub device_weights: Vec<DeviceLimit>,
    /// Lines of io.max.
    pub throttles: Vec<DeviceLimit>,
}

/// One value for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceLimit {
    /// The JSON path that names it.
    pub field: String,
    pub major: u32,
    pub minor: u32,
    pub kind: DeviceLimitKind,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceLimitKind {
    /// 10 to 1000.
    Weight,
    /// Bytes and operations per second; 0 is no limit.
    ReadBytes,
    WriteBytes,
    ReadOperations,
    WriteOperations,
}

impl HostLimits {
    /// Warnings for a container that lives in the microVM of `sandbox`: the VMM is not in its cgroup, so what only the host
    /// can keep is lost.
    pub fn lost_in(&self, sandbox: &str) -> Vec<String> {
        let warning = |field| format!("{field} has no effect: the microVM belongs to container {sandbox}");
        self.fields().into_iter().map(warning).collect()
    }

    /// The JSON paths of what only the host can keep.
    fn fields(&self) -> Vec<&str> {
        let given = [
            ("linux.resources.cpu.cpus", self.cpus.is_some()),
            ("linux.resources.cpu.mems", self.mems.is_some()),
            ("linux.resources.blockIO.weight", self.io_weight.is_some()),
        ];
        let of_devices = self.device_weights.iter().chain(&self.throttles).map(|limit| limit.field.as_str());
        given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field).chain(of_devices).collect()
    }
}

pub(super) fn cpu(raw: &raw::Cpu, limits: &mut HostLimits) -> Result<(), SpecError> {
    let list = |name: &str, list: Option<&String>| {
        let list = list.filter(|list| !list.is_empty()).cloned().map(CpuList::try_from);
        let field = || format!("linux.resources.cpu.{name}");
        list.transpose().map_err(|error| SpecError::Invalid { field: field(), reason: error.to_string() })
    };
    limits.cpus = list("cpus", raw.cpus.as_ref())?;
    limits.mems = list("mems", raw.mems.as_ref())?;
    Ok(())
}

pub(super) fn block_io(raw: &raw::BlockIo, limits: &mut HostLimits) -> Result<(), SpecError> {
    let field = |name: &str| format!("linux.resources.blockIO.{name}");
    refuse_leaf_weight(raw.leaf_weight, || field("leafWeight"))?;
    limits.io_weight = weight(raw.weight, || field("weight"))?;
    for (index, device) in devices(&raw.weight_device, &field("weightDevice"))? {
        let path = format!("{}[{index}]", field("weightDevice"));
        refuse_leaf_weight(device.leaf_weight, || format!("{path}.leafWeight"))?;
        if let Some(value) = weight(device.weight, || format!("{path}.weight"))? {
            limits.device_weights.push(limit(device, path, DeviceLimitKind::Weight, value.into())?);
        }
    }
    let throttles = [
        ("throttleReadBpsDevice", &raw.throttle_read_bps_device, DeviceLimitKind::ReadBytes),
        ("throttleWriteBpsDevice", &raw.throttle_write_bps_device, DeviceLimitKind::WriteBytes),
        ("throttleReadIOPSDevice", &raw.throttle_read_iops_device, DeviceLimitKind::ReadOperations),
        ("throttleWriteIOPSDevice", &raw.throttle_write_iops_device, DeviceLimitKind::WriteOperations),
    ];
    for (name, list, kind) in throttles {
        for (index, device) in devices(list, &field(name))? {
            let path = format!("{}[{index}]", field(name));
            let Some(rate) = device.rate else {
                return Err(SpecError::Missing { field: format!("{path}.rate") });
            };
            limits.throttles.push(limit(device, path, kind, rate)?);
        }
    }
    Ok(())
}

fn devices<'a>(
    list: &'a [raw::BlockDevice],
    field: &str,
) -> Result<impl Iterator<Item = (usize, &'a raw::BlockDevice)>, SpecError> {
    if list.len() > DEVICES_MAX {
        let reason = format!("{} devices are more than {DEVICES_MAX}", list.len());
        return Err(SpecError::Invalid { field: field.to_owned(), reason });
    }
    Ok(list.iter().enumerate())
}

fn limit(
    device: &raw::BlockDevice,
    field: String,
    kind: DeviceLimitKind,
    value: u64,
) -> Result<DeviceLimit, SpecError> {
    let (major, minor) = (u32::try_from(device.major), u32::try_from(device.minor));
    let (Ok(major), Ok(minor)) = (major, minor) else {
        let reason = format!("{}:{} is no device number", device.major, device.minor);
        return Err(SpecError::Invalid { field, reason });
    };
    Ok(DeviceLimit { field, major, minor, kind, value })
}

fn weight(weight: Option<u16>, field: impl Fn() -> String) -> Result<Option<u16>, SpecError> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight) if WEIGHTS.contains(&weight) => Ok(Some(weight)),
        Some(weight) => {
            let reason = format!("{weight} is not within {} to {}", WEIGHTS.start(), WEIGHTS.end());
            Err(SpecError::Invalid { field: field(), reason })
        }
    }
}

fn refuse_leaf_weight(weight: Option<u16>, field: impl Fn() -> String) -> Result<(), SpecError> {
    if weight.is_none_or(|weight| weight == 0) {
        return Ok(());
    }
    let reason = "cgroup2 has no leaf weights".to_owned();
    Err(SpecError::Refused { field: field(), reason })
}

/// The same weight as io.weight has it, 1 to 10000: runc's formula.
pub fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

#[cfg(test)]
mod tests;
