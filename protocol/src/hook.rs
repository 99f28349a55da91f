//! Hooks: programs that are run at steps of a container's life, on the host by the runtime and in the guest by
//! container-init. What a hook is and what it reads; `bulkhead_sys::hook` runs it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// A program that is run at a step of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// argv with argv[0]; empty means the path alone.
    pub args: Vec<String>,
    /// Exactly its environment: `KEY=value`.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<u32>,
}

/// The startContainer hooks, and what they are told of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartHooks {
    /// At least one; in order.
    pub hooks: Vec<Hook>,
    pub state: HookState,
}

/// What a hook reads on standard input: the state of runtime-spec's runtime.md, but for what changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookState {
    pub oci_version: String,
    pub id: String,
    pub bundle: String,
    pub annotations: BTreeMap<String, String>,
}

impl Hook {
    /// Until it is killed: its own timeout, or `longest` where that is shorter or it has none.
    pub fn timeout_within(&self, longest: Duration) -> Duration {
        self.timeout.map_or(longest, |timeout| longest.min(Duration::from_secs(timeout.into())))
    }
}

impl HookState {
    /// `pid` as the hook sees it; `None` when there is no process any more.
    pub fn json(&self, status: &str, pid: Option<u32>) -> Vec<u8> {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if let Some(pid) = pid {
            state["pid"] = pid.into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests;
