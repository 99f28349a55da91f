//! `bulkhead state`: a container's state as the OCI runtime spec has it, in JSON.

use std::{collections::BTreeMap, path::PathBuf};

use bulkhead_protocol::id::ContainerId;
use serde::Serialize;

use super::{Context, print};
use crate::{
    error::Error,
    sandbox::{container::Container, status::Status},
};

/// Print the state of a container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id.parse()?;
        let step = |error: Error| error.during(format!("state of {id}"));
        let container = Container::open(&context.root, &id).map_err(|e| step(e.into()))?;
        let status = container.status().map_err(step)?;
        print_json(&State::of(&container, status))?;
        Ok(0)
    }
}

/// The fields of the spec, and those that callers of runc read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    oci_version: String,
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) status: &'static str,
    pub(super) bundle: PathBuf,
    rootfs: PathBuf,
    pub(super) created: String,
    annotations: BTreeMap<String, String>,
    pub(super) owner: String,
}

impl State {
    pub(super) fn of(container: &Container, status: Status) -> Self {
        let record = &container.record;
        Self {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid: container.pid(status),
            status: status.name(),
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: record.owner.clone(),
        }
    }
}

pub(super) fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(value).map_err(|e| Error::io("write JSON", e.into()))?;
    print(&(json + "\n"))
}

#[cfg(test)]
mod tests;
