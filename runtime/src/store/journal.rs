//! Every object of a container that lies outside its state directory, one JSON line each, written before it is made.
//!
//! Appended to by the command, the server and the proxies, one at a time. A process writes its own line as the first thing
//! it does: until then it has made nothing that could leak, and it ends when the command that started it does. The VMM,
//! which knows no journal, has its line written by the server when it is spawned: it ends with the server. A last line
//! that was cut off names an object that was never made.
//!
//! A container that lives for years has an `exec` every few seconds: when the file has grown, who appends leaves out the
//! processes that have ended.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{NamespaceId, Process, Scope, StateError};

/// Bytes from which on it is looked for processes that have ended: some 900 lines. All processes that may run at once need as much.
const LARGE: u64 = 64 << 10;

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
    /// The redirect on an interface of a network namespace that others made: its ingress qdisc. By the indices of the
    /// interface and of the tap that it leads to.
    Redirect { namespace: PathBuf, id: NamespaceId, interface: u32, tap: u32 },
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
        let mut file = self.lock().map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > LARGE {
            file = self.without_the_dead().map_err(failed)?;
        }
        file.write_all(&line).map_err(failed)
    }

    /// The file as it is now, for this process alone as long as it is open.
    fn lock(&self) -> io::Result<File> {
        loop {
            let file = open(&self.path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            let (own, named) = (file.metadata()?, fs::metadata(&self.path));
            // Somebody may have put another in its place while this process waited.
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
                return Ok(file);
            }
        }
    }

    /// Puts a new file in the place of the locked one, locked as well: all that is left of the old one.
    fn without_the_dead(&self) -> io::Result<File> {
        let text = fs::read(&self.path)?;
        let counts = |line: &&[u8]| match serde_json::from_slice(line) {
            Ok(Entry::Process { process, .. }) => process.is_alive(),
            Ok(
                Entry::Cgroup { .. }
                | Entry::Foreign { .. }
                | Entry::Owned { .. }
                | Entry::Vacated { .. }
                | Entry::Scope { .. }
                | Entry::Redirect { .. },
            ) => true,
            Err(_) => false,
        };
        let kept: Vec<_> = text.split_inclusive(|&b| b == b'\n').filter(counts).collect();
        let path = self.path.with_extension("new");
        let mut file = open(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        file.set_len(0)?;
        file.write_all(&kept.concat())?;
        fs::rename(&path, &self.path)?;
        Ok(file)
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

fn open(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests;
