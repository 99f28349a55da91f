//! Foreign binaries: handlers of the host's binfmt_misc that the operator lists, for the guest.
//!
//!   /proc/sys/fs/binfmt_misc/NAME ─find─▶ Foreign ─share─▶ the interpreter in the share, read-only ─▶ Handler ─▶ agent
//!
//! The interpreter stays where it is and costs the guest what it reads of it. It must be found by its path: one that was
//! registered from a container, whose file the host's kernel alone has, is left out with a warning.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    binfmt::{Format, Handler, Start},
    container::SharePath,
};
use bulkhead_sys::chain;
use serde::{Deserialize, Serialize};

use super::{
    share::{Share, ShareError},
    source::open_export,
};
use crate::spec::{Export, ExportKind};

const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// Bytes of the file of a handler: some 600 at most.
const FILE_MAX: usize = 4096;
/// No container has this name.
const DIRECTORY: &str = "@binfmt";

/// A handler of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foreign {
    format: Format,
    /// A regular file; absolute, symlinks resolved.
    interpreter: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum ForeignError {
    #[error("the host has no such handler")]
    Missing,
    #[error("the host's handler is disabled")]
    Disabled,
    #[error("read the host's handler")]
    Read { source: io::Error },
    #[error("the host's handler is described as no kernel does it")]
    Unknown,
    #[error(transparent)]
    Format(#[from] bulkhead_protocol::binfmt::FormatError),
    #[error("find its interpreter {}", .path.display())]
    Interpreter { path: PathBuf, source: io::Error },
}

/// Those of `names` that the host has, and a warning for each other one.
pub fn find(names: &[String]) -> (Vec<Foreign>, Vec<String>) {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for name in names {
        match one(Path::new(REGISTERED), name) {
            Ok(foreign) => found.push(foreign),
            Err(error) => warnings.push(format!("foreign binaries of {name} do not run: {}", chain(&error))),
        }
    }
    (found, warnings)
}

fn one(registered: &Path, name: &str) -> Result<Foreign, ForeignError> {
    let text = match fs::read_to_string(registered.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ForeignError::Missing),
        text => text.map_err(|source| ForeignError::Read { source })?,
    };
    let (format, path) = parse(name, &text)?;
    let failed = |source| ForeignError::Interpreter { path: path.clone(), source };
    let interpreter = fs::canonicalize(&path).map_err(failed)?;
    if !fs::metadata(&interpreter).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    Ok(Foreign { format, interpreter })
}

/// Of the file that the kernel shows for a handler (`entry_status` in fs/binfmt_misc.c).
fn parse(name: &str, text: &str) -> Result<(Format, PathBuf), ForeignError> {
    if text.len() > FILE_MAX {
        return Err(ForeignError::Unknown);
    }
    let mut lines = text.lines();
    match lines.next() {
        Some("enabled") => {}
        Some("disabled") => return Err(ForeignError::Disabled),
        _ => return Err(ForeignError::Unknown),
    }
    let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).map(str::trim);
    let interpreter = field("interpreter ").ok_or(ForeignError::Unknown)?;
    let flags = field("flags:").ok_or(ForeignError::Unknown)?;
    let start = start(lines).ok_or(ForeignError::Unknown)?;
    Ok((Format::new(name, start, flags)?, interpreter.into()))
}

fn start<'t>(mut lines: impl Iterator<Item = &'t str>) -> Option<Start> {
    let line = lines.next()?;
    if let Some(extension) = line.strip_prefix("extension .") {
        return Some(Start::Extension(extension.to_owned()));
    }
    let offset = line.strip_prefix("offset ")?.parse().ok()?;
    let magic = bytes(lines.next()?.strip_prefix("magic ")?)?;
    let mask = match lines.next() {
        Some(line) => Some(bytes(line.strip_prefix("mask ")?)?),
        None => None,
    };
    Some(Start::Magic { offset, magic, mask })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

/// Shows the interpreters to the guest, for as long as the sandbox lives.
///
/// # Errors
/// When one cannot be shared.
pub(crate) fn share(share: &Share, found: &[Foreign]) -> Result<Vec<Handler>, ShareError> {
    let mut handlers = Vec::new();
    for (index, Foreign { format, interpreter }) in found.iter().enumerate() {
        let failed = |source| ShareError::Export { path: interpreter.clone(), source };
        let path = SharePath::try_from(format!("{DIRECTORY}/{index}/interpreter"));
        let path = path.map_err(|error| failed(io::Error::other(error)))?;
        let export = Export {
            source: interpreter.clone(),
            share: path.clone(),
            kind: ExportKind::File,
            read_only: true,
            read_only_recursive: false,
            recursive: false,
            shared_memory: false,
            id_map: None,
        };
        share.add(&export, &open_export(&export).map_err(|errno| failed(errno.into()))?)?;
        handlers.push(Handler { format: format.clone(), interpreter: path });
    }
    Ok(handlers)
}

#[cfg(test)]
mod tests;
