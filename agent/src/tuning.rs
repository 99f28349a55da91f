//! The guest's kernel gets the host's settings, as far as programs rely on them, before the first container.
//!
//!   Tuning ─▶ each file below /proc/sys that says less
//!
//! Nothing here is the end of a container: what the kernel does not take stays as it is, and the console says so.

use std::{fs, io, path::PathBuf};

use bulkhead_protocol::tuning::{Overcommit, Tuning};

const OVERCOMMIT: &str = "vm/overcommit_memory";
const OVERCOMMIT_LIMIT: &str = "vm/overcommit_kbytes";
/// proc_sys_vm(5).
const ALWAYS: &str = "1";
const NEVER: &str = "2";

#[derive(Debug, thiserror::Error)]
pub enum TuningError {
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("set {} to {value}", .path.display())]
    Set { path: PathBuf, value: String, source: io::Error },
}

/// /proc/sys, elsewhere in tests.
#[derive(Debug, Clone)]
pub struct ProcSys(PathBuf);

impl Default for ProcSys {
    fn default() -> Self {
        Self("/proc/sys".into())
    }
}

impl ProcSys {
    /// Sets what it can, and answers what failed. A setting that this kernel does not have is no failure.
    pub fn apply(&self, tuning: &Tuning) -> Vec<TuningError> {
        let mut failures = Vec::new();
        for (setting, value) in tuning.raised() {
            failures.extend(self.raise(setting.file(), value).err());
        }
        // The limit first: the policy would hold with another one meanwhile.
        let policy = match tuning.overcommit {
            Overcommit::Always => vec![(OVERCOMMIT, ALWAYS.to_owned())],
            Overcommit::Limit(kib) => {
                vec![(OVERCOMMIT_LIMIT, kib.to_string()), (OVERCOMMIT, NEVER.to_owned())]
            }
        };
        failures.extend(policy.into_iter().filter_map(|(file, value)| self.set(file, value).err()));
        failures
    }

    fn raise(&self, file: &str, value: u64) -> Result<(), TuningError> {
        let path = self.0.join(file);
        match fs::read_to_string(&path) {
            Ok(now) if now.trim().parse::<u64>().is_ok_and(|now| now >= value) => Ok(()),
            Ok(_) => self.set(file, value.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(TuningError::Read { path, source }),
        }
    }

    fn set(&self, file: &str, value: String) -> Result<(), TuningError> {
        let path = self.0.join(file);
        // No file is made where there is none.
        let opened = fs::OpenOptions::new().write(true).truncate(true).open(&path);
        let done = opened.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
        done.map_err(|source| TuningError::Set { path, value, source })
    }
}

#[cfg(test)]
mod tests;
