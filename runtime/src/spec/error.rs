//! Why a bundle is refused: always the field by its JSON path, so that the reader knows where to look.

use std::{io, path::PathBuf};

use bulkhead_protocol::limits;

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("open bundle {}", .path.display())]
    Bundle { path: PathBuf, source: io::Error },
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {} bytes", .path.display(), limits::CONFIG_JSON)]
    TooLarge { path: PathBuf },
    #[error("{} is not a regular file", .path.display())]
    NotAFile { path: PathBuf },
    #[error("{what} is not JSON")]
    Json { what: &'static str, source: serde_json::Error },
    /// A value of the wrong type.
    #[error("{field}")]
    Type { field: String, source: serde_json::Error },
    #[error("{field} is missing")]
    Missing { field: String },
    /// Known to the spec, not to us (yet): refused, never ignored.
    #[error("{field} is not supported yet")]
    Unsupported { field: String },
    /// The same, where the reason is known or another value would do.
    #[error("{field} is not supported: {reason}")]
    Refused { field: String, reason: String },
    #[error("{field}: {reason}")]
    Invalid { field: String, reason: String },
    /// What libseccomp says of a profile.
    #[error("{field}")]
    Seccomp { field: String, source: libseccomp::error::SeccompError },
    #[error("write the filter of linux.seccomp")]
    Filter { source: io::Error },
    /// A host path that the spec names.
    #[error("{field}: {}", .path.display())]
    Path { field: String, path: PathBuf, source: io::Error },
}

impl SpecError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("a bundle is a directory with a config.json: `bulkhead spec` makes one")
            }
            Self::Refused { field, .. } if field == "linux.namespaces" => {
                Some("a microVM has a network of its own: add {\"type\": \"network\"} to linux.namespaces")
            }
            Self::Refused { field, .. } if field.starts_with("linux.sysctl[") => Some(
                "`allowed_sysctls` in the configuration names settings that may be changed for a whole guest",
            ),
            Self::Path { field, source, .. }
                if field == "root.path" && source.kind() == io::ErrorKind::NotFound =>
            {
                Some("root.path is relative to the bundle; unpack a root filesystem there")
            }
            _ => None,
        }
    }
}
