//! `bulkhead features`: what this build supports, for callers that ask before they use it (CRI-O, containerd,
//! docker). Known at compile time, and read from the tables that the spec is checked with, so it cannot say more.

use serde_json::{Value, json};

use super::{Context, print};
use crate::{error::Error, spec};

/// Print the supported parts of the OCI runtime spec as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self, _context: &Context) -> Result<u8, Error> {
        print(&format!("{:#}\n", features()))?;
        Ok(0)
    }
}

fn features() -> Value {
    let off = json!({"enabled": false});
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": spec::hook_names().collect::<Vec<_>>(),
        "mountOptions": spec::mount_option_names().collect::<Vec<_>>(),
        "linux": {
            "namespaces": spec::namespace_names().collect::<Vec<_>>(),
            "capabilities": spec::capability_names().collect::<Vec<_>>(),
            "cgroup": {"v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": spec::SECCOMP_ACTIONS,
                "operators": spec::SECCOMP_OPERATORS,
                "archs": spec::SECCOMP_ARCHITECTURES.map(|(name, _)| name),
                "knownFlags": spec::SECCOMP_FLAGS.map(|(name, _)| name),
                "supportedFlags": spec::SECCOMP_FLAGS.into_iter().filter(|(_, bit)| bit.is_some())
                    .map(|(name, _)| name).collect::<Vec<_>>()
            },
            "memoryPolicy": {
                "modes": spec::MEMORY_POLICY_MODES.map(|(name, ..)| name),
                "flags": spec::MEMORY_POLICY_FLAGS.map(|(name, _)| name)
            },
            "apparmor": off,
            "selinux": off,
            "intelRdt": off,
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true}
        },
        "annotations": {"org.bulkhead.version": env!("CARGO_PKG_VERSION")},
        "potentiallyUnsafeConfigAnnotations": spec::ANNOTATIONS
    })
}

#[cfg(test)]
mod tests;
