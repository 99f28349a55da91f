//! Programs of this machine, and what they leave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// Finds a program of this machine.
pub(super) fn program(name: &str, hint: &'static str) -> Result<PathBuf, Error> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| Error::Missing { what: name.to_owned(), hint })
}

/// Removes a directory that may not be there.
pub(super) fn remove(dir: &Path) -> Result<(), Error> {
    if dir.exists() { fs::remove_dir_all(dir).map_err(Error::file("remove", dir)) } else { Ok(()) }
}

/// Runs a tool to its end and returns what it printed.
pub(super) fn run(command: &mut Command) -> Result<String, Error> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().map_err(|source| Error::Spawn { program: shown.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Tool { command: shown, status: output.status.to_string(), output: said })
}
