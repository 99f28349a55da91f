//! What the command line tells a server: the sandbox to make (`Plan`), and each container in it (`ContainerPlan`).
//!
//! A `ContainerPlan` rides in `CreateTaskRequest.options`: the command has read and checked the bundle already, and
//! what it has checked is what is run. Without one the server reads the bundle itself, as it must for other callers.

use std::path::{Path, PathBuf};

use bulkhead_protocol::{
    container::{ContainerSpec, ProcessSpec},
    id::ContainerId,
    vmm::HugePages,
};
use protobuf::well_known_types::any::Any;
use serde::{Deserialize, Serialize};

use super::{cgroup::bounds::Memory, share::Export, sizing::Sizes};
use crate::{
    config::Config,
    spec::{self, Bundle, HostLimits, Policy, SpecError},
    systemd::Scope,
};

/// Type of the options that hold a `ContainerPlan` as JSON.
const CONTAINER_PLAN: &str = "bulkhead.dev/container-plan";
/// Type of the exec spec that holds an `ExecPlan` as JSON.
const EXEC_PLAN: &str = "bulkhead.dev/exec-plan";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Of the state directory; absolute.
    pub root: PathBuf,
    pub id: ContainerId,
    pub vmm: PathBuf,
    pub sizes: Sizes,
    /// Where server, VMM and proxies go.
    pub cgroup: Option<PathBuf>,
    /// Whether the cgroup is a unit of systemd's.
    pub scope: Option<Scope>,
    /// To set there.
    pub limits: HostLimits,
    /// Whether the first container's memory is limited.
    pub memory: Memory,
    /// For server and VMM; `None` leaves what they inherit.
    pub oom_score_adj: Option<i32>,
    /// The network namespace whose descriptor comes along.
    pub network: Option<PathBuf>,
    /// Whether the host kernel shall move frames, where it can.
    pub vhost_net: bool,
    pub huge_pages: HugePages,
    /// Whether what the guest writes loses setuid, setgid and file capabilities.
    pub strip_setuid: bool,
    pub debug: bool,
    /// When the command was entered, CLOCK_MONOTONIC.
    pub command_ns: u64,
}

impl Plan {
    pub fn new(root: &Path, id: &ContainerId, config: &Config, sizes: Sizes) -> Self {
        Self {
            root: root.to_owned(),
            id: id.clone(),
            vmm: config.vmm.clone(),
            sizes,
            cgroup: None,
            scope: None,
            limits: HostLimits::default(),
            memory: Memory::Unlimited,
            oom_score_adj: None,
            network: None,
            vhost_net: config.vhost_net,
            huge_pages: config.huge_pages,
            strip_setuid: config.strip_setuid,
            debug: false,
            command_ns: 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPlan {
    pub bundle: PathBuf,
    /// The rootfs first.
    pub exports: Vec<Export>,
    pub guest: ContainerSpec,
    pub terminal: bool,
}

/// A further process, in `ExecProcessRequest.spec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecPlan {
    pub process: ProcessSpec,
    /// In a paused container, wait for its resumption.
    pub ignore_paused: bool,
    /// Below the container's cgroup; empty means that itself.
    pub cgroup: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("read the plan of the container")]
    Json { source: serde_json::Error },
    #[error("hooks are not supported yet in a container that is not made by the command line")]
    Hooks,
    #[error("exec spec of type {type_url:?} is not supported yet")]
    Type { type_url: String },
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
            directory: true,
            read_only: bundle.host.rootfs_readonly,
            read_only_recursive: false,
            recursive: true,
            id_map: None,
        };
        let exports = bundle.host.exports.iter().map(|export| Export {
            source: export.source.clone(),
            share: export.share.clone(),
            directory: export.directory,
            read_only: export.read_only,
            read_only_recursive: export.read_only_recursive,
            recursive: export.recursive,
            id_map: export.id_map.clone(),
        });
        Ok(Self {
            bundle: bundle.dir.clone(),
            exports: [rootfs].into_iter().chain(exports).collect(),
            guest,
            terminal: bundle.host.terminal,
        })
    }

    /// The container cannot write to its rootfs.
    pub(crate) fn is_read_only(&self) -> bool {
        self.exports.first().is_some_and(|rootfs| rootfs.read_only)
    }

    /// # Errors
    /// When it cannot be written as JSON: a path that is not UTF-8.
    pub fn to_options(&self) -> Result<Any, PlanError> {
        any(CONTAINER_PLAN, self)
    }

    /// From the options of a request, else from the bundle itself.
    pub(super) fn from_request(
        options: Option<&Any>,
        bundle: &Path,
        id: &ContainerId,
    ) -> Result<Self, PlanError> {
        match options {
            Some(any) if any.type_url == CONTAINER_PLAN => {
                serde_json::from_slice(&any.value).map_err(|source| PlanError::Json { source })
            }
            // What the operator allows beyond the default is the command's to know.
            _ => {
                let bundle = spec::load(bundle, id, &Policy::default())?;
                if bundle.host.hooks.is_empty() { Ok(Self::of(&bundle)?) } else { Err(PlanError::Hooks) }
            }
        }
    }
}

impl ExecPlan {
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_any(&self) -> Result<Any, PlanError> {
        any(EXEC_PLAN, self)
    }

    pub(super) fn from_any(any: &Any) -> Result<Self, PlanError> {
        if any.type_url != EXEC_PLAN {
            return Err(PlanError::Type { type_url: any.type_url.chars().take(256).collect() });
        }
        serde_json::from_slice(&any.value).map_err(|source| PlanError::Json { source })
    }
}

fn any<T: Serialize>(type_url: &str, value: &T) -> Result<Any, PlanError> {
    let value = serde_json::to_vec(value).map_err(|source| PlanError::Json { source })?;
    Ok(Any { type_url: type_url.to_owned(), value, ..Default::default() })
}
