//! What a bundle says about its microVM: the spec's `vm` object, and those annotations that are ours.
//!
//! Only read here: what of it this machine's operator allows is for `sandbox::sizing` to say, by the configuration.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Hardware, SpecError, Vm, process::check_absolute, raw};

/// MiB of memory, and number of vCPUs.
const MEMORY: &str = "org.bulkhead.vm.memory-mib";
const VCPUS: &str = "org.bulkhead.vm.vcpus";
/// All that a configuration can allow.
pub(crate) const ANNOTATIONS: [&str; 2] = [MEMORY, VCPUS];
const PREFIX: &str = "org.bulkhead.vm.";
const MIB: u64 = 1 << 20;

pub(super) fn parse(raw: Option<&raw::Vm>, annotations: &BTreeMap<String, String>) -> Result<Vm, SpecError> {
    let annotated = annotated(annotations)?;
    let Some(raw) = raw else { return Ok(Vm { annotated, ..Vm::default() }) };
    let parameters = [
        ("vm.hypervisor.parameters", &raw.hypervisor.parameters),
        ("vm.kernel.parameters", &raw.kernel.parameters),
    ];
    for (field, parameters) in parameters {
        if !parameters.is_empty() {
            let reason = "the runtime alone sets the command line".to_owned();
            return Err(SpecError::Refused { field: field.into(), reason });
        }
    }
    if raw::asks_for_something(raw.image.as_ref()) {
        return Err(SpecError::Unsupported { field: "vm.image".into() });
    }
    Ok(Vm {
        hypervisor: path(raw.hypervisor.path.as_deref(), "vm.hypervisor.path")?,
        kernel: path(raw.kernel.path.as_deref(), "vm.kernel.path")?,
        initrd: path(raw.kernel.initrd.as_deref(), "vm.kernel.initrd")?,
        hardware: hardware(&raw.hw_config)?,
        annotated,
    })
}

fn hardware(raw: &raw::HwConfig) -> Result<Hardware, SpecError> {
    let xen = [
        ("deviceTree", &raw.device_tree),
        ("dtdevs", &raw.dtdevs),
        ("iomems", &raw.iomems),
        ("irqs", &raw.irqs),
    ];
    for (name, value) in xen {
        if raw::asks_for_something(value.as_ref()) {
            let reason = "a microVM has neither a device tree nor a device of the host".to_owned();
            return Err(SpecError::Refused { field: format!("vm.hwConfig.{name}"), reason });
        }
    }
    let too_much = || SpecError::Invalid {
        field: "vm.hwConfig.memory".into(),
        reason: "is more than any machine has".into(),
    };
    let memory = raw.memory.filter(|bytes| *bytes != 0);
    let memory_mib = memory.map(|bytes| u32::try_from(bytes.div_ceil(MIB)).map_err(|_| too_much()));
    Ok(Hardware { memory_mib: memory_mib.transpose()?, vcpus: raw.vcpus.filter(|count| *count != 0) })
}

/// An unknown name below `org.bulkhead.vm.` is refused: the caller meant to change the machine.
fn annotated(annotations: &BTreeMap<String, String>) -> Result<Hardware, SpecError> {
    let field = |name: &str| format!("annotations[{name:?}]");
    let ours = annotations.keys().filter(|name| name.starts_with(PREFIX));
    if let Some(unknown) = ours.into_iter().find(|name| !ANNOTATIONS.contains(&name.as_str())) {
        let reason = format!("the known names are {}", ANNOTATIONS.join(", "));
        return Err(SpecError::Refused { field: field(unknown), reason });
    }
    let number = |name: &str| {
        let Some(text) = annotations.get(name) else { return Ok(None) };
        text.parse::<u32>().map(Some).map_err(|_| SpecError::Invalid {
            field: field(name),
            reason: format!("{text:?} is not a whole number"),
        })
    };
    Ok(Hardware { memory_mib: number(MEMORY)?, vcpus: number(VCPUS)? })
}

/// Absolute on the host; whether it may be used is not for the bundle to say.
fn path(path: Option<&str>, field: &'static str) -> Result<Option<PathBuf>, SpecError> {
    let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(None) };
    check_absolute(path, || field.to_owned())?;
    Ok(Some(path.into()))
}

#[cfg(test)]
mod tests;
