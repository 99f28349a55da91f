//! The creation of one container, from its claim to its record: all of it is kept, or all of it is undone.
//!
//!   claim: directory locked ─▶ config.json, creating.json ─▶ host cgroup
//!   make, in the guest (`Containers`) ─▶ hooks of the host, run by the front end ─▶ commit: state.json
//!
//! Everything outside the directory is in its journal before it is made. A `Creation` that is dropped before `complete` undoes
//! itself by that journal; so does the next one of the same id, when the server was killed.
//!
//! The hooks are not run here: a hook has the environment of who creates the container, and the server has given that up.
//! What it gave up it cannot take back: no_new_privs, the session keyring.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bulkhead_protocol::id::ContainerId;
use bulkhead_sys::chain;
use serde::{Deserialize, Serialize};

use super::ContainerError;
use crate::{
    log::note,
    sandbox::cgroup::{self, Entrance, Place},
    store::{Entry, Locked, Process, Record, names, write_atomically, write_json},
    undo,
};

/// Bytes of a request: `config.json`, escaped as a string, and what was read from it.
const REQUEST_MAX: u64 = 4 * bulkhead_protocol::limits::CONFIG_JSON;

/// What the host keeps of a container that is to be, and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreationRequest {
    /// Its `proxy` is not known yet.
    pub record: Record,
    /// `config.json` as it was read.
    pub config: String,
    /// `None` leaves its processes where they are.
    pub cgroup: Option<Place>,
    /// The creation is undone when this process ends before it is complete.
    pub caller: Process,
}

impl CreationRequest {
    /// # Errors
    /// When the file does not hold one.
    pub(crate) fn read(file: &File) -> Result<Self, ContainerError> {
        let failed = |source| ContainerError::Request { source };
        let mut json = Vec::new();
        file.take(REQUEST_MAX).read_to_end(&mut json).map_err(failed)?;
        serde_json::from_slice(&json).map_err(|e| failed(e.into()))
    }
}

/// A container that is being created. Dropping it undoes all that was done.
#[derive(Debug)]
pub(crate) struct Creation {
    id: ContainerId,
    dir: Locked,
    record: Record,
    caller: Process,
    cgroup: Option<Place>,
    entrance: Option<Entrance>,
    /// Where this process was before it went there.
    home: Option<PathBuf>,
    /// This process, the server, may be in its cgroup.
    hosts_sandbox: bool,
    done: bool,
    /// What is not quite as the bundle asks for, to be told to the caller.
    pub(super) warnings: Vec<String>,
    /// The sandbox ends, and undoes it then.
    pub(super) aborted: bool,
    /// Held while the guest makes it.
    pub(super) making: Arc<tokio::sync::Mutex<()>>,
}

impl Creation {
    /// Takes the id, and makes what the container has on the host. `hosts_sandbox`: its cgroup is the microVM's.
    ///
    /// # Errors
    /// When the id is taken, or something cannot be made; nothing is left then.
    pub(crate) fn claim(
        root: &Path,
        request: CreationRequest,
        hosts_sandbox: bool,
    ) -> Result<Self, ContainerError> {
        let CreationRequest { record, config, cgroup, caller } = request;
        let id: ContainerId = record.id.parse()?;
        let dir = undo::claim(root, &id)?;
        let mut creation = Self {
            id,
            dir,
            record,
            caller,
            cgroup,
            entrance: None,
            home: cgroup::own(),
            hosts_sandbox,
            done: false,
            warnings: Vec::new(),
            aborted: false,
            making: Arc::default(),
        };
        // What this leaves behind on its way is undone by the drop.
        creation.set_up(root, &config)?;
        Ok(creation)
    }

    fn set_up(&mut self, root: &Path, config: &str) -> Result<(), ContainerError> {
        // First, so that `state` finds something.
        write_json(&self.dir.join(names::CREATING), &self.record)?;
        write_atomically(&self.dir.join(names::CONFIG), config.as_bytes())?;
        if let Some(place) = &self.cgroup {
            let journal = self.dir.journal();
            self.entrance = Some(Entrance::make(place, root, &self.id, &journal)?);
            if self.hosts_sandbox {
                journal.append(&Entry::Owned { path: place.path.clone() })?;
            }
        }
        Ok(())
    }

    pub(crate) fn id(&self) -> &ContainerId {
        &self.id
    }

    pub(super) fn caller(&self) -> Process {
        self.caller
    }

    pub(super) fn cgroup_path(&self) -> Option<PathBuf> {
        self.cgroup.as_ref().map(|place| place.path.clone())
    }

    /// Its processes are in the cgroup: nobody else takes it any more. What kept it, to be dropped.
    pub(super) fn entered(&mut self) -> Option<Entrance> {
        self.entrance.take()
    }

    /// Has others find the container. `proxy` stands for its init.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn write_record(&self, proxy: Option<Process>) -> Result<(), ContainerError> {
        let record = Record { proxy, ..self.record.clone() };
        Ok(write_json(&self.dir.join(names::STATE), &record)?)
    }

    /// With its record it is a container. Lets other commands at it.
    pub(super) fn complete(mut self) {
        self.done = true;
        // It says nothing that state.json does not.
        let _ = std::fs::remove_file(self.dir.join(names::CREATING));
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.entrance = None;
        if self.hosts_sandbox {
            // A cgroup with a process in it cannot be removed, and this is one.
            cgroup::leave(self.home.as_deref());
        }
        if let Err(error) = undo::everything(&self.dir) {
            note(&format!("undo the creation of {}: {}", self.id, chain(&error)));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
