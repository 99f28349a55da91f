//! Every object of a container that lies outside its state directory, one JSON line each, written before it is made.
//!
//! Only ever appended to, by the command, the server and the proxies; one `write` per line, so lines do not mix. A
//! process writes its own line as the first thing it does: until then it has made nothing that could leak, and it ends
//! when the command that started it does. The VMM, which knows no journal, has its line written by the server when it
//! is spawned: it ends with the server. A last line that was cut off names an object that was never made.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Process, StateError};
use crate::{network::NamespaceId, systemd::Scope};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "object")]
pub enum Entry {
    Process {
        role: Role,
        #[serde(flatten)]
        process: Process,
    },
    /// A directory of the cgroup2 hierarchy that did not exist before. Its parents, when we made them, have lines
    /// of their own before this one.
    Cgroup { path: PathBuf },
    /// A scope of systemd, and its directory.
    Scope { scope: Scope, path: PathBuf },
    /// The directory of an earlier line was there after all: another one has made it.
    Foreign { path: PathBuf },
    /// All that is in this cgroup, from now on, was started by the VMM or is one of our processes.
    Owned { path: PathBuf },
    /// The VMM and all that it has started have left the cgroup: what is in it from now on is not ours.
    Vacated { path: PathBuf },
    /// The redirect on an interface of a network namespace that others made: its ingress qdisc.
    Redirect { namespace: PathBuf, id: NamespaceId, interface: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Server,
    Vmm,
    Proxy,
}

#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// # Errors
    /// When the line is not in the file: then the object must not be made.
    pub fn append(&self, entry: &Entry) -> Result<(), StateError> {
        let failed = |e| StateError::io(format!("write journal {}", self.path.display()), e);
        let mut line = serde_json::to_vec(entry).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        let mut file =
            fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).map_err(failed)?;
        file.write_all(&line).map_err(failed)
    }

    /// This process, in the role it plays for the container.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_self(&self, role: Role) -> Result<Process, StateError> {
        let process = Process::current().map_err(|e| StateError::io("read this process's start time", e))?;
        self.append(&Entry::Process { role, process })?;
        Ok(process)
    }

    /// All entries, oldest first. Lines that are not entries are skipped: there is nothing to undo for them.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, StateError> {
        match fs::read(&self.path) {
            Ok(text) => {
                Ok(text.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(StateError::io(format!("read journal {}", self.path.display()), e)),
        }
    }
}

#[cfg(test)]
mod tests;
