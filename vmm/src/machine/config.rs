//! What the server asks for, checked: the only thing that a machine is made from.

use std::{fmt::Display, fs::File, ops::RangeInclusive, os::fd::OwnedFd};

use bulkhead_protocol::{
    limits::{self, SLOTS},
    vmm::{self, Device, HugePages, Slot},
};

use crate::{
    boot::cmdline::CommandLine,
    fds::{Fds, MissingFd},
};

/// A configuration that is wrong in itself.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{what} is {value}; {allowed} is allowed")]
    Range { what: &'static str, value: u32, allowed: String },
    #[error("slot {} does not exist: there are {SLOTS}", .0.0)]
    NoSlot(Slot),
    #[error("slot {} has two devices", .0.0)]
    SlotTwice(Slot),
    #[error(transparent)]
    Fd(#[from] MissingFd),
}

/// Refuses a value that is not in `range`. `what`: the field, for the message.
pub(super) fn in_range<T>(what: &'static str, value: T, range: RangeInclusive<T>) -> Result<(), ConfigError>
where
    T: PartialOrd + Display + Copy + Into<u32>,
{
    if range.contains(&value) {
        return Ok(());
    }
    let allowed = format!("{} to {}", range.start(), range.end());
    Err(ConfigError::Range { what, value: value.into(), allowed })
}

/// A checked `vmm::MachineConfig`, with its descriptors.
#[derive(Debug)]
pub struct CheckedConfig {
    pub(super) memory_mib: u32,
    pub(super) max_memory_mib: u32,
    pub(super) files: u64,
    pub(super) huge_pages: HugePages,
    pub(super) command_line: CommandLine,
    pub(super) kvm: OwnedFd,
    pub(super) kernel: File,
    pub(super) initramfs: File,
    pub(super) share: OwnedFd,
    pub(super) devices: Vec<(Slot, Device)>,
    pub(super) fds: Fds,
}

impl CheckedConfig {
    /// # Errors
    /// A value is out of its range, a slot does not exist or is named twice, or a descriptor is missing.
    pub fn check(config: vmm::MachineConfig, mut fds: Fds) -> Result<Self, ConfigError> {
        let vmm::MachineConfig { memory_mib, max_memory_mib, vcpus, max_vcpus, devices, .. } = &config;
        let most = *limits::MEMORY_MIB.end();
        in_range("memory in MiB", *memory_mib, limits::MEMORY_MIB)?;
        in_range("max_memory_mib", *max_memory_mib, *memory_mib..=most)?;
        in_range("max_vcpus", *max_vcpus, 1..=limits::VCPUS)?;
        in_range("vcpus", *vcpus, 1..=*max_vcpus)?;
        for (index, (slot, _)) in devices.iter().enumerate() {
            if usize::from(slot.0) >= SLOTS {
                return Err(ConfigError::NoSlot(*slot));
            }
            if devices.iter().take(index).any(|(earlier, _)| earlier == slot) {
                return Err(ConfigError::SlotTwice(*slot));
            }
        }
        Ok(Self {
            memory_mib: *memory_mib,
            max_memory_mib: *max_memory_mib,
            // As many as a kernel of the host has by default, whatever the server says.
            files: config.files.min(limits::FILES),
            huge_pages: config.huge_pages,
            command_line: CommandLine {
                vcpus: *vcpus,
                max_vcpus: *max_vcpus,
                grows: max_memory_mib > memory_mib,
                debug: config.debug_console,
                stable_tsc: config.stable_tsc,
            },
            kvm: fds.take(config.kvm, "KVM device")?,
            kernel: fds.take(config.kernel, "kernel")?.into(),
            initramfs: fds.take(config.initramfs, "initramfs")?.into(),
            share: fds.take(config.share, "share")?,
            devices: config.devices,
            fds,
        })
    }
}
