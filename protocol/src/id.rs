//! Names that cross borders: sandbox ids, container ids, exec ids and stream tokens. Parsed once, then safe as a path component,
//! a cgroup name and a word of a header line.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("id is empty")]
    Empty,
    #[error("id has {len} bytes, at most {max} are allowed", max = ID_MAX)]
    TooLong { len: usize },
    #[error("id {id:?} is reserved")]
    Reserved { id: String },
    #[error("id {id:?} has {bad:?}: letters, digits, `_`, `+`, `-` and `.` are allowed")]
    Character { id: String, bad: char },
}

/// Bytes of an id: conmon, podman and containerd use 64; longer names stay legal.
pub const ID_MAX: usize = 128;

fn check(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > ID_MAX {
        return Err(IdError::TooLong { len: id.len() });
    }
    if let Some(bad) = id.chars().find(|c| !(c.is_ascii_alphanumeric() || "_+-.".contains(*c))) {
        return Err(IdError::Character { id: id.to_owned(), bad });
    }
    if id == "." || id == ".." {
        return Err(IdError::Reserved { id: id.to_owned() });
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(id: &str) -> Result<Self, IdError> {
                check(id).map(|()| Self(id.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(id: String) -> Result<Self, IdError> {
                check(&id).map(|()| Self(id))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// A container: `[A-Za-z0-9_+.-]`, 1 to `ID_MAX` bytes, not `.` or `..` (runc's rule).
    ContainerId
}
id_type! {
    /// A sandbox: a microVM with any number of containers; the same alphabet. Not the id of one of them.
    SandboxId
}
id_type! {
    /// A further process of a container, unique within it; the same alphabet.
    ExecId
}
id_type! {
    /// Binds the stdio streams of one process together; drawn at random by the host, used once.
    StreamToken
}

#[cfg(test)]
mod tests;
