//! The operator's configuration: `/etc/bulkhead/config.toml`, or the file of `--config`.
//!
//!   TOML ─RawConfig (private, unknown fields refused)─▶ TryFrom: every field checked ─▶ Config
//!
//! Without a file the defaults hold: artefacts are looked for beside the executable (`<prefix>/bin/bulkhead` →
//! `<prefix>/libexec/bulkhead`, `<prefix>/share/bulkhead`). A file of `--config` must exist.

mod host;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{binfmt::HANDLERS, limits, vmm::HugePages};
use serde::Deserialize;

use self::host::Host;
use crate::spec::{self, Apparmor, Policy};

/// Read when there is no `--config`.
pub const DEFAULT_PATH: &str = "/etc/bulkhead/config.toml";
/// Bytes of a configuration file.
const SIZE_MAX: u64 = 1 << 20;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The VMM's executable. Default: `<prefix>/libexec/bulkhead/bulkhead-vmm`.
    pub vmm: PathBuf,
    /// The guest kernel, an ELF vmlinux with a PVH note. Default: `<prefix>/share/bulkhead/vmlinux`.
    pub kernel: PathBuf,
    /// The guest image that holds the agent. Default: `<prefix>/share/bulkhead/initramfs.img`.
    pub initramfs: PathBuf,
    /// Memory in MiB that a sandbox boots with whose container has no limit, 48 to `max_memory_mib`. Default: 512.
    pub memory_mib: u32,
    /// The most that a sandbox is made with or grows to, up to 65536. Default: seven eighths of the host's, or `memory_mib` if that
    /// is more.
    pub max_memory_mib: u32,
    /// vCPUs of a sandbox whose container has no quota, 1 to `max_vcpus`. Default: as many as this process may use CPUs.
    pub vcpus: u8,
    /// The most that a sandbox is made with or grows to, 1 to 32. Default: the host's CPUs, or `vcpus` if that is more.
    pub max_vcpus: u8,
    /// Whether the host kernel moves frames between taps and guests, where it has /dev/vhost-net. Default: true.
    pub vhost_net: bool,
    /// Whether connections to the loopback addresses of a container's network namespace on the host reach the guest. Default: true.
    pub port_forward: bool,
    /// Whether the host backs guest memory with pages of 2 MiB: "always" or "never". Default: always.
    pub huge_pages: HugePages,
    /// Whether files that a guest writes lose the setuid bit, the setgid bit (but for directories) and file capabilities, in
    /// the rootfs and on volumes. Default: false.
    pub strip_setuid: bool,
    /// Whether a rootfs belongs to one container alone, so that the guest may keep what it has of it. Default: true.
    pub exclusive_rootfs: bool,
    /// Handlers of the host's binfmt_misc by which guests run foreign binaries. Default: none.
    pub binfmt: Vec<String>,
    /// Annotations `org.bulkhead.vm.*` that a bundle may use. Default: none.
    pub allowed_annotations: Vec<String>,
    /// Values that a bundle may give `vm.hypervisor.path`, `vm.kernel.path` and `vm.kernel.initrd`. Default: none.
    pub allowed_vmms: Vec<PathBuf>,
    pub allowed_kernels: Vec<PathBuf>,
    pub allowed_initramfs: Vec<PathBuf>,
    /// Settings of the whole guest that a bundle may change, unix sockets of the host that it may mount, and what an AppArmor profile
    /// leads to. Default: no settings, no sockets, and a warning.
    pub policy: Policy,
}

const MEMORY_MIB: u32 = 512;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    vmm: Option<PathBuf>,
    kernel: Option<PathBuf>,
    initramfs: Option<PathBuf>,
    memory_mib: Option<u32>,
    max_memory_mib: Option<u32>,
    vcpus: Option<u8>,
    max_vcpus: Option<u8>,
    vhost_net: Option<bool>,
    port_forward: Option<bool>,
    #[serde(default)]
    huge_pages: HugePages,
    #[serde(default)]
    strip_setuid: bool,
    exclusive_rootfs: Option<bool>,
    #[serde(default)]
    binfmt: Vec<String>,
    #[serde(default)]
    allowed_annotations: Vec<String>,
    #[serde(default)]
    allowed_vmms: Vec<PathBuf>,
    #[serde(default)]
    allowed_kernels: Vec<PathBuf>,
    #[serde(default)]
    allowed_initramfs: Vec<PathBuf>,
    #[serde(default)]
    allowed_sysctls: Vec<String>,
    #[serde(default)]
    host_sockets: Vec<String>,
    #[serde(default)]
    apparmor: Apparmor,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read configuration {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("configuration {} is larger than {SIZE_MAX} bytes", .path.display())]
    TooLarge { path: PathBuf },
    #[error("parse configuration {}", .path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("configuration {}: {field}: {reason}", .path.display())]
    Field { path: PathBuf, field: &'static str, reason: String },
    #[error("find the executable's own path")]
    Executable { source: io::Error },
    #[error("open the guest kernel {}", .path.display())]
    Kernel { path: PathBuf, source: io::Error },
    #[error("open the guest image {}", .path.display())]
    Initramfs { path: PathBuf, source: io::Error },
    #[error("open the VMM {}", .path.display())]
    Vmm { path: PathBuf, source: io::Error },
}

impl ConfigError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Kernel { .. } => Some("install Bulkhead's kernel, or set `kernel` in the configuration"),
            Self::Initramfs { .. } => {
                Some("install Bulkhead's guest image, or set `initramfs` in the configuration")
            }
            Self::Vmm { .. } => {
                Some("install bulkhead-vmm beside the runtime, or set `vmm` in the configuration")
            }
            Self::Parse { .. } => Some("docs/config.md lists the fields"),
            Self::Read { .. } | Self::TooLarge { .. } | Self::Field { .. } | Self::Executable { .. } => None,
        }
    }
}

/// What a sandbox is made from, open for reading: later replacement of the files changes nothing.
#[derive(Debug)]
pub struct Artefacts {
    pub vmm: File,
    pub kernel: File,
    pub initramfs: File,
}

impl Config {
    /// Reads `explicit`, else the default file when there is one, else takes the defaults.
    ///
    /// # Errors
    /// Unreadable, not TOML, an unknown field, or a value out of its range.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let exe = std::env::current_exe().map_err(|source| ConfigError::Executable { source })?;
        let path = explicit.unwrap_or(Path::new(DEFAULT_PATH));
        let raw = match read(path) {
            Ok(text) => parse(path, &text)?,
            Err(ConfigError::Read { source, .. })
                if explicit.is_none() && source.kind() == io::ErrorKind::NotFound =>
            {
                RawConfig::default()
            }
            Err(error) => return Err(error),
        };
        raw.check(path, &prefix_of(&exe), Host::here())
    }

    /// Opens the VMM, the kernel and the image.
    ///
    /// # Errors
    /// The first that is missing, not a regular file, or not readable.
    pub fn open_artefacts(&self) -> Result<Artefacts, ConfigError> {
        let path = &self.vmm;
        let vmm = open_regular(path).map_err(|source| ConfigError::Vmm { path: path.clone(), source })?;
        let path = &self.kernel;
        let kernel =
            open_regular(path).map_err(|source| ConfigError::Kernel { path: path.clone(), source })?;
        let path = &self.initramfs;
        let initramfs =
            open_regular(path).map_err(|source| ConfigError::Initramfs { path: path.clone(), source })?;
        Ok(Artefacts { vmm, kernel, initramfs })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > SIZE_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    fs::read_to_string(path).map_err(failed)
}

fn parse(path: &Path, text: &str) -> Result<RawConfig, ConfigError> {
    toml::from_str(text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

/// `<prefix>` of `<prefix>/bin/bulkhead`.
fn prefix_of(exe: &Path) -> PathBuf {
    exe.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned()
}

fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Only what exists can be allowed: a typing error must not pass for a policy.
fn annotations(names: Vec<String>) -> Result<Vec<String>, String> {
    match names.iter().find(|name| !spec::ANNOTATIONS.contains(&name.as_str())) {
        Some(unknown) => Err(format!("{unknown:?} is not one of {}", spec::ANNOTATIONS.join(", "))),
        None => Ok(names),
    }
}

/// Names of files in one directory.
fn handlers(names: Vec<String>) -> Result<Vec<String>, String> {
    if names.len() > HANDLERS {
        return Err(format!("{} handlers are more than {HANDLERS}", names.len()));
    }
    match names
        .iter()
        .find(|name| matches!(&***name, "" | "." | ".." | "register" | "status") || name.contains('/'))
    {
        Some(name) => Err(format!("{name:?} is no name of a handler")),
        None => Ok(names),
    }
}

fn absolute(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, String> {
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(format!("{} is not an absolute path", path.display())),
        None => Ok(paths),
    }
}

impl RawConfig {
    fn check(self, path: &Path, prefix: &Path, host: Host) -> Result<Config, ConfigError> {
        let refuse = |field, reason| ConfigError::Field { path: path.to_owned(), field, reason };
        let artefact = |field, given: Option<PathBuf>, default: &str| match given {
            None => Ok(prefix.join(default)),
            Some(given) if given.is_absolute() => Ok(given),
            Some(given) => Err(refuse(field, format!("{} is not an absolute path", given.display()))),
        };
        let (least, most) = (*limits::MEMORY_MIB.start(), *limits::MEMORY_MIB.end());
        let memory_mib = self.memory_mib.unwrap_or(MEMORY_MIB);
        if !limits::MEMORY_MIB.contains(&memory_mib) {
            return Err(refuse("memory_mib", format!("{memory_mib} is not between {least} and {most}")));
        }
        let max_memory_mib = self.max_memory_mib.unwrap_or(host.max_memory_mib().max(memory_mib));
        if !(memory_mib..=most).contains(&max_memory_mib) {
            let reason = format!("{max_memory_mib} is not between memory_mib, {memory_mib}, and {most}");
            return Err(refuse("max_memory_mib", reason));
        }
        let max_vcpus = self.max_vcpus.unwrap_or(host.max_vcpus().max(self.vcpus.unwrap_or(1)));
        if !(1..=limits::VCPUS).contains(&max_vcpus) {
            return Err(refuse("max_vcpus", format!("{max_vcpus} is not between 1 and {}", limits::VCPUS)));
        }
        let vcpus = self.vcpus.unwrap_or(host.vcpus().min(max_vcpus));
        if !(1..=max_vcpus).contains(&vcpus) {
            return Err(refuse("vcpus", format!("{vcpus} is not between 1 and max_vcpus, {max_vcpus}")));
        }
        let sysctls = self.allowed_sysctls.try_into().map_err(|reason| refuse("allowed_sysctls", reason))?;
        let sockets = self.host_sockets.try_into().map_err(|reason| refuse("host_sockets", reason))?;
        Ok(Config {
            policy: Policy { sysctls, apparmor: self.apparmor, sockets },
            vmm: artefact("vmm", self.vmm, "libexec/bulkhead/bulkhead-vmm")?,
            kernel: artefact("kernel", self.kernel, "share/bulkhead/vmlinux")?,
            initramfs: artefact("initramfs", self.initramfs, "share/bulkhead/initramfs.img")?,
            memory_mib,
            max_memory_mib,
            vcpus,
            max_vcpus,
            vhost_net: self.vhost_net.unwrap_or(true),
            port_forward: self.port_forward.unwrap_or(true),
            huge_pages: self.huge_pages,
            strip_setuid: self.strip_setuid,
            exclusive_rootfs: self.exclusive_rootfs.unwrap_or(true),
            binfmt: handlers(self.binfmt).map_err(|reason| refuse("binfmt", reason))?,
            allowed_annotations: annotations(self.allowed_annotations)
                .map_err(|unknown| refuse("allowed_annotations", unknown))?,
            allowed_vmms: absolute(self.allowed_vmms).map_err(|path| refuse("allowed_vmms", path))?,
            allowed_kernels: absolute(self.allowed_kernels)
                .map_err(|path| refuse("allowed_kernels", path))?,
            allowed_initramfs: absolute(self.allowed_initramfs)
                .map_err(|path| refuse("allowed_initramfs", path))?,
        })
    }
}

#[cfg(test)]
mod tests;
