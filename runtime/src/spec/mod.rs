//! An OCI bundle, checked and split: what the host must do for it, and what the agent must do in the guest.
//!
//!   config.json ─read, capped─▶ bytes ─raw (serde, private)─▶ checks ─▶ HostPart + ContainerSpec
//!
//! Nothing is touched here: `config.json` is read, its paths are looked at, and nothing else is opened. Either the whole
//! bundle can be honoured, or it is refused with the JSON path of the field. Unknown properties are ignored, as the spec
//! asks; unknown values are not. The bytes are kept: later edits of the file change nothing.

mod bundle;
mod capabilities;
mod devices;
mod disks;
mod error;
mod hooks;
mod host_limits;
mod memory_policy;
mod mounts;
mod namespaces;
mod net_devices;
mod options;
mod personality;
mod pod_files;
mod pod_limits;
mod policy;
mod process;
mod raw;
mod resources;
mod rlimits;
mod scheduling;
mod seccomp;
mod sysctl;
mod vm;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    container::{
        ContainerSpec, DeviceKind, DiskFilesystem, IdMap, NamespaceKind, ProcessSpec, Resources, SharePath,
    },
    hook::Hook,
    id::ContainerId,
};
use serde::{Deserialize, Serialize};

pub(crate) use bundle::read_capped;
pub(crate) use capabilities::names as capability_names;
pub(crate) use devices::may_write;
pub use error::SpecError;
pub(crate) use hooks::names as hook_names;
pub use host_limits::{DeviceLimit, DeviceLimitKind, HostLimits, io_weight};
pub(crate) use memory_policy::{FLAGS as MEMORY_POLICY_FLAGS, MODES as MEMORY_POLICY_MODES};
pub(crate) use namespaces::names as namespace_names;
pub use net_devices::NetDevice;
pub(crate) use options::names as mount_option_names;
pub(crate) use pod_files::{HOSTNAME, HOSTS, RESOLV_CONF, SHARED_MEMORY};
pub use pod_limits::PodLimits;
pub(crate) use pod_limits::{POD_CPU_PERIOD, POD_CPU_QUOTA, POD_MEMORY};
pub use policy::{AllowedSockets, AllowedSysctls, Apparmor, Policy};
pub use seccomp::Profile;
pub(crate) use seccomp::{
    ACTIONS as SECCOMP_ACTIONS, ARCHITECTURES as SECCOMP_ARCHITECTURES, FLAGS as SECCOMP_FLAGS,
    OPERATORS as SECCOMP_OPERATORS,
};
pub(crate) use vm::ANNOTATIONS;

/// A `config.json` to start from, as `bulkhead spec` writes it: a shell on a terminal, over a read-only `rootfs` beside it.
pub const TEMPLATE: &str = include_str!("template.json");

/// A bundle that can be run.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Absolute, symlinks resolved.
    pub dir: PathBuf,
    /// `config.json` as it was read.
    pub json: Vec<u8>,
    pub host: HostPart,
    /// All but the filter of `seccomp`.
    pub guest: ContainerSpec,
    /// Compiled only when it is needed, for that takes a while.
    pub seccomp: Option<Profile>,
}

impl Bundle {
    /// Whether the container has disks of the host, as devices or by their filesystems.
    pub fn has_disks(&self) -> bool {
        let devices = &self.guest.devices;
        !self.host.disks.is_empty() || devices.iter().any(|node| node.kind == DeviceKind::Block)
    }
}

/// What the host does for the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPart {
    pub oci_version: String,
    /// Absolute, an existing directory; to be shared as `<id>/rootfs` (`guest.rootfs.source`).
    pub rootfs: PathBuf,
    pub rootfs_readonly: bool,
    /// What the guest gets of the host, beside the rootfs.
    pub exports: Vec<Export>,
    /// Disks whose filesystems the guest mounts.
    pub disks: Vec<DiskMount>,
    /// A network namespace of the host, whose interfaces the VM gets. `None`: a fresh namespace, empty at first.
    pub network: Option<NetworkPath>,
    /// Interfaces that move into that namespace.
    pub net_devices: Vec<NetDevice>,
    /// Namespaces, `network` among them, that the container may share with another container.
    pub joins: Vec<Join>,
    /// As written: `/path`, `path` or `slice:prefix:name`.
    pub cgroups_path: Option<String>,
    /// Of the microVM as a whole.
    pub limits: HostLimits,
    /// Of the pod, where this is the container of its sandbox.
    pub pod: PodLimits,
    pub annotations: BTreeMap<String, String>,
    /// `process.terminal`.
    pub terminal: bool,
    /// What the bundle says about its machine.
    pub vm: Vm,
    pub hooks: Hooks,
    /// Fields that are accepted and not honoured, one line for each, to be logged.
    pub warnings: Vec<String>,
    /// The same of what nobody expects: for the log, not for a person's eyes.
    pub notes: Vec<String>,
}

/// The microVM that the bundle asks for. The operator's configuration decides how much of it is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vm {
    /// Absolute paths on the host, in place of the configured ones.
    pub hypervisor: Option<PathBuf>,
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    /// `vm.hwConfig`.
    pub hardware: Hardware,
    /// By annotations.
    pub annotated: Hardware,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hardware {
    pub memory_mib: Option<u32>,
    pub vcpus: Option<u32>,
}

/// Programs that run at steps of the container's life, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    /// The guest's; it gets them with its own part.
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

impl Hooks {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A network namespace of the host that the bundle names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPath {
    /// The JSON path that names it.
    pub field: String,
    /// Absolute; not looked at.
    pub path: PathBuf,
}

/// A namespace that the bundle names by a process of the host, which may be the proxy of another container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The JSON path that names it.
    pub field: String,
    pub kind: NamespaceKind,
    pub pid: u32,
}

/// One host file or directory that the guest may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Absolute.
    pub source: PathBuf,
    /// Of a rootfs its place in the share; else the name by which a mount of the container refers to it, `<id>/mounts/<n>`.
    pub share: SharePath,
    pub kind: ExportKind,
    /// The host's mount is read-only.
    pub read_only: bool,
    /// So are the mounts below it (`rro`); only with `read_only` and `recursive`.
    pub read_only_recursive: bool,
    /// Mounts below the source come along (`rbind`).
    pub recursive: bool,
    /// It is mounted at /dev/shm.
    pub shared_memory: bool,
    /// Its owners are seen as others: all accesses of the VMM go through the map.
    pub id_map: Option<IdMap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportKind {
    Directory,
    /// A regular file.
    File,
    /// A unix socket: who connects to it in the guest reaches the host's one.
    Socket,
}

/// A disk of the host with a filesystem that the guest mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskMount {
    /// Absolute; a block device or a regular file.
    pub source: PathBuf,
    /// The name by which a mount of the container refers to it, `<id>/disks/<n>`.
    pub name: SharePath,
    /// As the mount says; what is on the disk is not looked at.
    pub filesystem: DiskFilesystem,
    pub read_only: bool,
}

/// What the flags of `exec` change in the container's own process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecFlags {
    /// The command; must not be empty.
    pub args: Vec<String>,
    /// `KEY=value`, after those of the container.
    pub env: Vec<String>,
    pub cwd: Option<String>,
    /// `UID[:GID]`.
    pub user: Option<String>,
    pub additional_gids: Vec<u32>,
    /// A terminal is used only when asked for.
    pub terminal: bool,
    pub no_new_privileges: bool,
    /// Names to add to the bounding, effective and permitted sets.
    pub capabilities: Vec<String>,
    /// Instead of the container's own.
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
}

/// Reads and checks the bundle at `dir` for a container to be named `id`, within what the operator allows.
/// `pod_files`: a directory with what its pod gives it.
///
/// # Errors
/// The first thing that is wrong or not supported, by its JSON path.
pub fn load(
    dir: &Path,
    id: &ContainerId,
    policy: &Policy,
    pod_files: Option<&Path>,
) -> Result<Bundle, SpecError> {
    bundle::load(dir, id, policy, pod_files)
}

/// A process, and its fields that are accepted and not honoured: one line for each, to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedProcess {
    pub process: ProcessSpec,
    pub warnings: Vec<String>,
}

/// Reads and checks the file of `exec --process FILE`, a `process` object on its own.
///
/// # Errors
/// As for `load`, with paths that start at `process`.
pub fn load_process(file: &Path, policy: &Policy) -> Result<CheckedProcess, SpecError> {
    checked(&raw::parse(&bundle::read_capped(file)?, "the process file", "process")?, policy)
}

/// Limits to change in a container that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedUpdate {
    /// What is not in it stays.
    pub resources: Resources,
    pub host: HostLimits,
    pub warnings: Vec<String>,
}

/// Reads and checks the resources of an update, a `linux.resources` object on its own.
///
/// # Errors
/// As for `load`, with paths that start at `linux.resources`.
pub fn parse_update(json: &[u8]) -> Result<CheckedUpdate, SpecError> {
    let raw: raw::Resources = raw::parse(json, "the resources", "linux.resources")?;
    let mut warnings = Vec::new();
    let (mut resources, host) = resources::parse(&raw, &[], &mut warnings)?;
    // Callers hand over what they once created the container with; runc leaves the devices alone as well.
    resources.devices = Vec::new();
    Ok(CheckedUpdate { resources, host, warnings })
}

/// The process that `exec` with flags runs: the container's own from its `config.json`, changed by the flags.
///
/// # Errors
/// As for `load`; for a flag the field is named `--flag`.
pub fn exec_process(
    config_json: &[u8],
    flags: &ExecFlags,
    policy: &Policy,
) -> Result<CheckedProcess, SpecError> {
    let spec: raw::Spec = raw::parse(config_json, "config.json", "")?;
    let own = spec.process.ok_or_else(|| SpecError::Missing { field: "process".into() })?;
    checked(&process::with_flags(own, flags)?, policy)
}

fn checked(raw: &raw::Process, policy: &Policy) -> Result<CheckedProcess, SpecError> {
    let mut warnings = Vec::new();
    let process = process::check(raw, policy, &mut warnings)?;
    Ok(CheckedProcess { process, warnings })
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod properties;
