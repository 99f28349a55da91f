//! The files of a state directory that hold one JSON value each, written whole or not at all.
//!
//!   value ─▶ `<name>…tmp` ─rename─▶ `<name>`
//!
//! A reader sees the old file, the new file or none; a disk that is full leaves the old one.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use bulkhead_protocol::id::SandboxId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Process, StateError};
use crate::spec::Hooks;

/// Bytes of such a file: annotations are the only part that grows, and `config.json` bounds them.
const SIZE_MAX: u64 = bulkhead_protocol::limits::CONFIG_JSON;

/// `state.json`: what `create` knows of a container, fixed for its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub annotations: BTreeMap<String, String>,
    /// Name of the user who created it; empty when it has none.
    pub owner: String,
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// Whose microVM it is in.
    pub sandbox: SandboxId,
    /// Stands for the container's init on the host: the pid that callers see. `None` while it is being created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Process>,
    /// It has disks of the host, to which its end writes what the guest has cached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disks: bool,
}

/// `exit.json`: how the container's init ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    pub code: u32,
    /// Not 0: death by that signal, and `code` means nothing.
    pub signal: u32,
    /// RFC 3339.
    pub exited_at: String,
    /// The sandbox died under it: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_failure: Option<String>,
}

/// The directory may be one that others write to, such as that of a pid file: the temporary file has a name that nobody
/// can foresee, and is certainly new.
///
/// # Errors
/// The temporary file cannot be written or renamed; it is removed then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    write(path, bytes).map_err(|source| StateError::io(format!("write {}", path.display()), source))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = tempfile::Builder::new().prefix(name).suffix(".tmp").tempfile_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.persist(path).map(drop).map_err(|error| error.error)
}

/// Writes a value as JSON, as `write_atomically`.
///
/// # Errors
/// As `write_atomically`; or the value cannot be written as JSON: a path that is not UTF-8.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let json =
        serde_json::to_vec(value).map_err(|e| StateError::io(format!("write {}", path.display()), e))?;
    write_atomically(path, &json)
}

/// `None` when there is no such file.
///
/// # Errors
/// It cannot be read, or is not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let failed = |e| StateError::io(format!("read {}", path.display()), e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::Corrupt { path: path.to_owned(), source })
}
