//! Limits of a pod as a whole, as CRI describes them: the kubelet's sum over the pod's containers.
//!
//! containerd's CRI plugin writes `resources` of the pod's description (`runtime.v1.LinuxPodSandboxConfig`) into annotations
//! of the sandbox's container. They size the pod's microVM; the limits of each container hold as they are.

use std::collections::BTreeMap;

use bulkhead_protocol::container::Limit;
use serde::{Deserialize, Serialize};

use super::SpecError;

/// Bytes; 0 and less: the pod has no limit.
pub(crate) const POD_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
/// µs of CPU time in a period; 0 and less: the pod has no limit.
pub(crate) const POD_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
/// µs.
pub(crate) const POD_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

/// `None` where the pod has no limit, or nobody said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodLimits {
    pub memory: Option<Limit>,
    pub cpu_quota: Option<Limit>,
    pub cpu_period: Option<u64>,
}

/// # Errors
/// A value that is no whole number, by the annotation's name.
pub(super) fn parse(annotations: &BTreeMap<String, String>) -> Result<PodLimits, SpecError> {
    let number = |name: &str| {
        let Some(text) = annotations.get(name) else { return Ok(None) };
        let number: i64 = text.parse().map_err(|_| SpecError::Invalid {
            field: format!("annotations[{name:?}]"),
            reason: format!("{text:?} is not a whole number"),
        })?;
        Ok(u64::try_from(number).ok().filter(|number| *number != 0))
    };
    Ok(PodLimits {
        memory: number(POD_MEMORY)?.map(Limit::Value),
        cpu_quota: number(POD_CPU_QUOTA)?.map(Limit::Value),
        cpu_period: number(POD_CPU_PERIOD)?,
    })
}

#[cfg(test)]
mod tests;
