//! `bulkhead state`: a container's state as the OCI runtime spec has it, in JSON.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bulkhead_protocol::id::ContainerId;
use serde::Serialize;

use super::{Context, print_json};
use crate::{
    api::container::Container,
    container::status::Status,
    error::Error,
    store::{Record, StateDir, StateError},
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
        let state = State::find(&context.root, &id);
        print_json(&state.map_err(|error| error.during(format!("state of {id}")))?)?;
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
    /// Of a container that exists, or is being created.
    ///
    /// # Errors
    /// `StateError::Creating` when its creation was cut off.
    pub(super) fn find(root: &Path, id: &ContainerId) -> Result<Self, Error> {
        match Container::open(root, id) {
            Ok(container) => {
                let status = container.status()?;
                Ok(Self::of(&container.record, status, container.pid(status)))
            }
            Err(StateError::Creating { .. }) => Self::creating(root, id),
            Err(error) => Err(error.into()),
        }
    }

    /// The server that creates it holds the lock of its directory.
    fn creating(root: &Path, id: &ContainerId) -> Result<Self, Error> {
        let dir = StateDir::open(root, id)?;
        let record = dir.creating()?;
        let creating = || StateError::Creating { id: id.clone() };
        if dir.try_lock()?.is_some() {
            return Err(creating().into());
        }
        Ok(Self::of(&record.ok_or_else(creating)?, Status::Creating, 0))
    }

    fn of(record: &Record, status: Status, pid: u32) -> Self {
        Self {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid,
            status: status.name(),
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: record.owner.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
