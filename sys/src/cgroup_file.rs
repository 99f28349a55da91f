//! Files of a cgroup (cgroup2): a value is one write, and what was changed can be set back.
//!
//!   Earlier::remember(file, value) ─▶ write(file, value) ─▶ … ─▶ Earlier::restore, when a later write fails
//!
//! A file may hold one value, or one for each device or key; then only what a value changes is remembered of it.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Writes one value, at once: the kernel takes each write as a value of its own. An empty one clears the file.
///
/// # Errors
/// When the file is not there (its controller is not enabled), or the kernel refuses the value: EINVAL, ERANGE, EBUSY.
pub fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(directory.join(file))?;
    // No bytes at all would be no write.
    file.write_all(if value.is_empty() { b"\n" } else { value.as_bytes() })
}

/// What files of a cgroup said before they were changed, in the order of the changes.
#[derive(Debug)]
#[must_use]
pub struct Earlier {
    directory: PathBuf,
    values: Vec<Value>,
}

#[derive(Debug, PartialEq, Eq)]
struct Value {
    file: String,
    /// One write.
    text: String,
}

/// A value that the kernel does not take back.
#[derive(Debug)]
pub struct Unrestored {
    directory: PathBuf,
    value: Value,
    error: io::Error,
}

impl fmt::Display for Unrestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (directory, Value { file, text }) = (self.directory.display(), &self.value);
        write!(f, "set {file} of {directory} back to {text:?}: {}", self.error)
    }
}

impl Earlier {
    /// Of the cgroup at `directory`; nothing is remembered yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), values: Vec::new() }
    }

    /// Remembers what `value` is about to change in `file`. What is remembered already stays as it is, so a file may be
    /// changed twice. A file that can only be written (EINVAL) has nothing to remember.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn remember(&mut self, file: &str, value: &str) -> io::Result<()> {
        if file == "cpu.idle" {
            // The weight is lost with the first change of the other. Without it there is no idle either.
            match self.remember_one("cpu.weight", "") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.remember_one(file, value)
    }

    fn remember_one(&mut self, file: &str, value: &str) -> io::Result<()> {
        let text = match fs::read_to_string(self.directory.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            text => text?,
        };
        for text in values_before(&text, file, value) {
            let known = |known: &Value| known.file == file && key(&known.text) == key(&text);
            if !self.values.iter().any(known) {
                self.values.push(Value { file: file.to_owned(), text });
            }
        }
        Ok(())
    }

    /// Writes everything back, last change first. Answers what could not be: the error that led here is the one to report.
    pub fn restore(self) -> Vec<Unrestored> {
        let Self { directory, values: mut left } = self;
        let mut failed = Vec::new();
        // Twice, for some limits bound each other.
        for _ in 0..2 {
            failed.clear();
            left.reverse();
            left.retain(|value| match write(&directory, &value.file, &value.text) {
                Ok(()) => false,
                Err(error) => {
                    failed.push(error);
                    true
                }
            });
            failed.reverse();
            left.reverse();
        }
        let unrestored = |(value, error)| Unrestored { directory: directory.clone(), value, error };
        left.into_iter().zip(failed).map(unrestored).collect()
    }
}

/// What a value is the value of, in a file with several: a device, `default`, a resource.
fn key(value: &str) -> Option<&str> {
    let (key, _) = value.split_once(' ')?;
    // Two numbers are quota and period.
    (!key.bytes().all(|byte| byte.is_ascii_digit()) && key != "max").then_some(key)
}

/// What `text`, all that a file says, says of that which `value` changes: values that can be written back.
fn values_before(text: &str, file: &str, value: &str) -> Vec<String> {
    // The weight of an idle group, which cannot be set.
    if file == "cpu.weight" && text.trim() == "0" {
        return Vec::new();
    }
    if text.trim().is_empty() && key(value).is_none() {
        return vec![String::new()];
    }
    if let Some(key) = key(value) {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
        if let Some(line) = line {
            return vec![line.to_owned()];
        }
        // A device without a line has the defaults, which it is given by name.
        if key.contains(':') {
            let unset = if file == "io.max" { "rbps=max wbps=max riops=max wiops=max" } else { "default" };
            return vec![format!("{key} {unset}")];
        }
    }
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
