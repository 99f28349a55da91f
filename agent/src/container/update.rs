//! New limits for a container that exists: all of them, or those of before.
//!
//!   files of `Resources` ─ read each ─▶ write each in order ─ one fails ─▶ write the old values back, last first

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bulkhead_protocol::container::{Limit, Resources};

use super::{
    Cgroup,
    cgroup::files,
    error::{ContainerError, During},
};

/// One file that changes.
#[derive(Debug)]
struct Change {
    path: PathBuf,
    before: String,
    value: String,
}

impl Cgroup {
    /// Writes what is given and leaves the rest. Device rules stay as they are.
    ///
    /// # Errors
    /// The first limit that cannot be set; all are as before then.
    pub fn update(&self, resources: &Resources) -> Result<(), ContainerError> {
        let changes = files(resources)?.into_iter().map(|(file, value)| {
            let path = self.path().join(&file);
            let before = fs::read_to_string(&path).during("read limit", &file)?;
            let value = match file.as_str() {
                "cpu.max" if resources.cpu_quota.is_none() => with_quota_of(&before, &value),
                _ => value,
            };
            Ok(Change { path, before, value })
        });
        let changes: Vec<Change> = changes.collect::<Result<_, ContainerError>>()?;
        for (index, change) in changes.iter().enumerate() {
            if let Err(error) = fs::write(&change.path, &change.value) {
                roll_back(&changes[..index]);
                let file = change.path.file_name().unwrap_or_default().display();
                return Err(error).during("set limit", format_args!("{file} to {}", change.value));
            }
        }
        Ok(())
    }

    /// Refuses a limit that is below what is in use: the kernel would reclaim, and then kill.
    pub fn check_memory(&self, resources: &Resources) -> Result<(), ContainerError> {
        let Some(Limit::Value(limit)) = resources.memory_max else { return Ok(()) };
        let file = self.path().join("memory.current");
        let text = fs::read_to_string(&file).during("read", file.display())?;
        let current: u64 = text.trim().parse().map_err(io::Error::other).during("read", file.display())?;
        if current <= limit {
            return Ok(());
        }
        Err(ContainerError::refused(format_args!("memory.limit {limit} is below the {current} bytes in use")))
    }
}

/// A period that comes alone leaves the quota, which the kernel would take for `max`.
fn with_quota_of(before: &str, value: &str) -> String {
    match (before.split_whitespace().next(), value.split_whitespace().nth(1)) {
        (Some(quota), Some(period)) => format!("{quota} {period}"),
        _ => value.to_owned(),
    }
}

/// The kernel took these values once; one that it does not take again is told, and is the best there is.
fn roll_back(changes: &[Change]) {
    for change in changes.iter().rev() {
        if let Err(error) = restore(&change.path, &change.before) {
            crate::say!("put {} back to {:?}: {error}", change.path.display(), change.before);
        }
    }
}

/// Files with a line per device take one line at a time.
fn restore(path: &Path, before: &str) -> io::Result<()> {
    before.lines().try_for_each(|line| fs::write(path, line))
}

#[cfg(test)]
mod tests;
