//! A cgroup that systemd makes: it wants a process for it, before there is one that may come in.
//!
//!   server: Holder ─▶ scope with the holder in it ─▶ VMM inside ─▶ the holder ends        command: scope with a proxy in it
//!
//! The server and the proxies enter late, when they have opened their devices, so none of them can be the first.

use std::{
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use bulkhead_protocol::id::ContainerId;

use super::CgroupError;
use crate::{
    store::{Entry, Journal},
    systemd::{self, Scope},
};

/// The word after which `main` below is meant.
pub const COMMAND: &str = "scope-holder";

/// Makes the scope with this process in it.
///
/// # Errors
/// When systemd refuses, or has put the process elsewhere.
pub fn make(
    path: &Path,
    scope: &Scope,
    id: &ContainerId,
    pid: u32,
    journal: &Journal,
) -> Result<(), CgroupError> {
    journal.append(&Entry::Scope { scope: scope.clone(), path: path.to_owned() })?;
    systemd::start(scope, id.as_str(), pid)?;
    // A systemd below another root would have another path for it.
    if path.is_dir() { Ok(()) } else { Err(CgroupError::Elsewhere { path: path.to_owned() }) }
}

/// A process that does nothing. It ends when this is dropped, or the process that has it.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self, CgroupError> {
        let started = Command::new("/proc/self/exe")
            .arg0("bulkhead")
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        started.map(Self).map_err(|source| CgroupError::Holder { source })
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The whole holder: its exit code.
pub fn main() -> u8 {
    let _ = io::stdin().read(&mut [0]);
    0
}

#[cfg(test)]
mod tests;
