//! What is to be made: a container, or a further process in one.

use std::path::PathBuf;

use bulkhead_protocol::container::{ContainerSpec, ProcessSpec};
use serde::{Deserialize, Serialize};

use crate::spec::{self, Bundle, DiskMount, Export, ExportKind, PodLimits, SpecError};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPlan {
    pub bundle: PathBuf,
    /// The rootfs first.
    pub exports: Vec<Export>,
    /// Whose filesystems the guest mounts; those without are among its devices.
    pub disks: Vec<DiskMount>,
    pub guest: ContainerSpec,
    /// By which the machine is sized when the container holds a pod and runs nothing.
    pub pod: PodLimits,
    pub terminal: bool,
}

/// A further process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecPlan {
    pub process: ProcessSpec,
    /// In a paused container, wait for its resumption.
    pub ignore_paused: bool,
    /// Below the container's cgroup; empty means that itself.
    pub cgroup: String,
}

impl ContainerPlan {
    /// Compiles the filter of the container's system calls, if it has one.
    ///
    /// # Errors
    /// When that cannot be compiled.
    pub fn of(bundle: &Bundle) -> Result<Self, SpecError> {
        let mut guest = bundle.guest.clone();
        guest.confinement.seccomp = bundle.seccomp.as_ref().map(spec::Profile::compile).transpose()?;
        let rootfs = Export {
            source: bundle.host.rootfs.clone(),
            share: bundle.guest.rootfs.source.clone(),
            kind: ExportKind::Directory,
            read_only: bundle.host.rootfs_readonly,
            read_only_recursive: false,
            recursive: true,
            shared_memory: false,
            id_map: None,
        };
        Ok(Self {
            bundle: bundle.dir.clone(),
            exports: [rootfs].into_iter().chain(bundle.host.exports.iter().cloned()).collect(),
            disks: bundle.host.disks.clone(),
            guest,
            pod: bundle.host.pod,
            terminal: bundle.host.terminal,
        })
    }

    /// The container cannot write to its rootfs.
    pub(crate) fn is_read_only(&self) -> bool {
        self.exports.first().is_some_and(|rootfs| rootfs.read_only)
    }
}
