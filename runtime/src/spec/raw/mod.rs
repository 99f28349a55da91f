//! `config.json` as it is written: runtime-spec 1.3.0, nothing checked but types.
//!
//! Private to `spec`: outside there are only checked types. Go writes `null` for an empty list, so `null` means
//! absent everywhere. Parts that are refused as a whole are `Value`s, only looked at for being empty.
//!
//! The types of `oci-spec` are not used: they refuse an unknown capability, where the spec wants a warning; an error of
//! theirs names no JSON path; and they have no `vm.hwConfig`. The tests hold the two against each other.

mod object;
mod resources;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use self::object::{nullable, objects};
pub(super) use self::resources::{BlockDevice, BlockIo, Cpu, DeviceRule, HugepageLimit, Memory, Resources};
use super::SpecError;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Spec {
    pub oci_version: Option<String>,
    pub process: Option<Process>,
    pub root: Option<Root>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "nullable")]
    pub hooks: Hooks,
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub linux: Linux,
    pub vm: Option<Vm>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Hooks {
    #[serde(deserialize_with = "nullable")]
    pub prestart: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub create_container: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub start_container: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub poststart: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub poststop: Vec<Hook>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct Hook {
    pub path: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Root {
    pub path: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub readonly: bool,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Process {
    #[serde(deserialize_with = "nullable")]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    #[serde(deserialize_with = "nullable")]
    pub user: User,
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub capabilities: Option<Capabilities>,
    #[serde(deserialize_with = "nullable")]
    pub rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "nullable")]
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct Scheduler {
    pub policy: String,
    #[serde(deserialize_with = "nullable")]
    pub nice: i32,
    #[serde(deserialize_with = "nullable")]
    pub priority: i32,
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub runtime: u64,
    #[serde(deserialize_with = "nullable")]
    pub deadline: u64,
    #[serde(deserialize_with = "nullable")]
    pub period: u64,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct IoPriority {
    pub class: String,
    #[serde(deserialize_with = "nullable")]
    pub priority: i64,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct CpuAffinity {
    #[serde(deserialize_with = "nullable")]
    pub initial: String,
    #[serde(rename = "final", deserialize_with = "nullable")]
    pub last: String,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct ConsoleSize {
    pub height: u64,
    pub width: u64,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    #[serde(deserialize_with = "nullable")]
    pub additional_gids: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct Capabilities {
    #[serde(deserialize_with = "nullable")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub ambient: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(remote = "Self", expecting = "an object")]
pub(super) struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Mount {
    pub destination: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub source: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub options: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Linux {
    #[serde(deserialize_with = "nullable")]
    pub namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "nullable")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "nullable")]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "nullable")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<Device>,
    #[serde(deserialize_with = "nullable")]
    pub net_devices: BTreeMap<String, NetDevice>,
    pub cgroups_path: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub resources: Resources,
    pub rootfs_propagation: Option<String>,
    pub seccomp: Option<Seccomp>,
    #[serde(deserialize_with = "nullable")]
    pub sysctl: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub masked_paths: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub readonly_paths: Vec<String>,
    pub mount_label: Option<String>,
    pub intel_rdt: Option<Value>,
    pub memory_policy: Option<MemoryPolicy>,
    pub personality: Option<Personality>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct NetDevice {
    pub name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct TimeOffset {
    #[serde(deserialize_with = "nullable")]
    pub secs: i64,
    #[serde(deserialize_with = "nullable")]
    pub nanosecs: u32,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct MemoryPolicy {
    pub mode: String,
    #[serde(deserialize_with = "nullable")]
    pub nodes: String,
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct Personality {
    pub domain: String,
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Seccomp {
    pub default_action: Option<String>,
    pub default_errno_ret: Option<u32>,
    #[serde(deserialize_with = "nullable")]
    pub architectures: Vec<String>,
    /// Absent is not the same as empty here.
    pub flags: Option<Vec<String>>,
    pub listener_path: Option<String>,
    pub listener_metadata: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub syscalls: Vec<Syscalls>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", remote = "Self", expecting = "an object")]
pub(super) struct Syscalls {
    pub names: Vec<String>,
    pub action: String,
    pub errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    pub args: Vec<SyscallArg>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", remote = "Self", expecting = "an object")]
pub(super) struct SyscallArg {
    pub index: u32,
    pub value: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub value_two: u64,
    pub op: String,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(remote = "Self", expecting = "an object")]
pub(super) struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(remote = "Self", expecting = "an object")]
pub(super) struct IdMapping {
    #[serde(rename = "containerID")]
    pub container: u32,
    #[serde(rename = "hostID")]
    pub host: u32,
    pub size: u32,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", remote = "Self", expecting = "an object")]
pub(super) struct Device {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: String,
    #[serde(default)]
    pub major: Option<i64>,
    #[serde(default)]
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct Vm {
    #[serde(deserialize_with = "nullable")]
    pub hypervisor: Hypervisor,
    #[serde(deserialize_with = "nullable")]
    pub kernel: Kernel,
    pub image: Option<Value>,
    /// The schema's spelling; the Go type has the other.
    #[serde(deserialize_with = "nullable", alias = "hwconfig")]
    pub hw_config: HwConfig,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct Hypervisor {
    pub path: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub parameters: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, remote = "Self", expecting = "an object")]
pub(super) struct Kernel {
    pub path: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub parameters: Vec<String>,
    pub initrd: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
pub(super) struct HwConfig {
    pub vcpus: Option<u32>,
    pub memory: Option<u64>,
    pub device_tree: Option<Value>,
    pub dtdevs: Option<Value>,
    pub iomems: Option<Value>,
    pub irqs: Option<Value>,
}

objects!(
    Spec,
    Hooks,
    Hook,
    Root,
    Process,
    Scheduler,
    IoPriority,
    CpuAffinity,
    ConsoleSize,
    User,
    Capabilities,
    Rlimit,
    Mount,
    Linux,
    NetDevice,
    TimeOffset,
    MemoryPolicy,
    Personality,
    Seccomp,
    Syscalls,
    SyscallArg,
    Namespace,
    IdMapping,
    Device,
    Vm,
    Hypervisor,
    Kernel,
    HwConfig
);

/// Parses the whole of `json`; `what` names it and `prefix` begins its paths.
pub(super) fn parse<'de, T: Deserialize<'de>>(
    json: &'de [u8],
    what: &'static str,
    prefix: &str,
) -> Result<T, SpecError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let source = error.into_inner();
        if !source.is_data() {
            return SpecError::Json { what, source };
        }
        let field = match (path.as_str(), prefix) {
            (".", "") => what.to_owned(),
            (".", prefix) => prefix.to_owned(),
            (_, "") => path,
            (_, prefix) => format!("{prefix}.{path}"),
        };
        SpecError::Type { field, source }
    })?;
    deserializer.end().map_err(|source| SpecError::Json { what, source })?;
    Ok(value)
}

/// Whether a part that cannot be honoured asks for anything: callers write `{}`, `[]` and zeros for "not set".
pub(super) fn asks_for_something(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(values)) => values.iter().any(|value| asks_for_something(Some(value))),
        Some(Value::Object(fields)) => fields.values().any(|value| asks_for_something(Some(value))),
    }
}

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod tests;
