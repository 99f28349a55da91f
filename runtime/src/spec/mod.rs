//! An OCI bundle, checked and split: what the host must do for it, and what the agent must do in the guest.
//!
//!   config.json ─read, capped─▶ bytes ─raw (serde, private)─▶ checks ─▶ HostPart + ContainerSpec
//!
//! Nothing is touched here: a bundle is read, its paths are looked at, and either all of it can be honoured or it is
//! refused with the JSON path of the field. Unknown properties are ignored, as the spec asks; unknown values are not.
//! The bytes are kept: later edits of the file change nothing.

mod bundle;
mod capabilities;
mod devices;
mod error;
mod mounts;
mod namespaces;
mod options;
mod process;
mod raw;
mod resources;
mod rlimits;
mod sysctl;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    container::{ContainerSpec, ProcessSpec, SharePath},
    id::ContainerId,
};

pub(crate) use capabilities::names as capability_names;
pub use error::SpecError;
pub(crate) use namespaces::names as namespace_names;
pub(crate) use options::names as mount_option_names;

/// A bundle that can be run.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Absolute, symlinks resolved.
    pub dir: PathBuf,
    /// `config.json` as it was read.
    pub json: Vec<u8>,
    pub host: HostPart,
    pub guest: ContainerSpec,
}

/// What the host does for the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPart {
    pub oci_version: String,
    /// Absolute, an existing directory; to be shared as `<id>/rootfs` (`guest.rootfs.source`).
    pub rootfs: PathBuf,
    pub rootfs_readonly: bool,
    /// Binds to make in the share, beside the rootfs.
    pub exports: Vec<Export>,
    /// A network namespace of the host, whose interfaces the VM gets; absolute. `None`: a fresh one, empty at first.
    pub network: Option<PathBuf>,
    /// As written: `/path`, `path` or `slice:prefix:name`.
    pub cgroups_path: Option<String>,
    pub annotations: BTreeMap<String, String>,
    /// `process.terminal`.
    pub terminal: bool,
    /// What is tolerated but not honoured; one line each, to be logged.
    pub warnings: Vec<String>,
}

/// One host file or directory that the guest may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Absolute; exists, is a directory or a regular file.
    pub source: PathBuf,
    /// `<id>/mounts/<n>`; the agent mounts it from there.
    pub share: SharePath,
    pub directory: bool,
    /// The host's mount is read-only.
    pub read_only: bool,
    /// So are the mounts below it (`rro`); only with `read_only` and `recursive`.
    pub read_only_recursive: bool,
    /// Mounts below the source come along (`rbind`).
    pub recursive: bool,
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
}

/// Reads and checks the bundle at `dir` for a container to be named `id`.
///
/// # Errors
/// The first thing that is wrong or not supported, by its JSON path.
pub fn load(dir: &Path, id: &ContainerId) -> Result<Bundle, SpecError> {
    bundle::load(dir, id)
}

/// A process with what is tolerated in it but not honoured, one line each, to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedProcess {
    pub process: ProcessSpec,
    pub warnings: Vec<String>,
}

/// Reads and checks the file of `exec --process FILE`, a `process` object on its own.
///
/// # Errors
/// As for `load`, with paths that start at `process`.
pub fn load_process(file: &Path) -> Result<CheckedProcess, SpecError> {
    checked(&raw::parse(&bundle::read_capped(file)?, "the process file", "process")?)
}

/// The process that `exec` with flags runs: the container's own from its `config.json`, changed by the flags.
///
/// # Errors
/// As for `load`; for a flag the field is named `--flag`.
pub fn exec_process(config_json: &[u8], flags: &ExecFlags) -> Result<CheckedProcess, SpecError> {
    let spec: raw::Spec = raw::parse(config_json, "config.json", "")?;
    let own = spec.process.ok_or_else(|| SpecError::Missing { field: "process".into() })?;
    checked(&process::with_flags(own, flags)?)
}

fn checked(raw: &raw::Process) -> Result<CheckedProcess, SpecError> {
    let mut warnings = Vec::new();
    let process = process::check(raw, &mut warnings)?;
    Ok(CheckedProcess { process, warnings })
}

#[cfg(test)]
mod fixture;
