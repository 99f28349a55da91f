//! Why a container or a process in it could not be made.
//!
//! A failing step in container-init becomes a `ContainerError` there, crosses the socket as JSON and reaches the
//! user word for word: the step and its object are the message, the cause is the `source`. Errors of the program
//! itself read as callers of container runtimes match them (`exec: "foo": executable file not found in $PATH`).

use std::{borrow::Cow, fmt, io};

use serde::{Deserialize, Serialize};

/// Bytes kept of one object or cause: names come from the bundle, and a report must fit a packet.
const TEXT_MAX: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ContainerError {
    /// One step of the set-up failed.
    #[error("{step} {object}")]
    Step { step: Cow<'static, str>, object: String, source: Cause },
    /// The specification asks for something this agent cannot honour, or contradicts itself.
    #[error("{what}")]
    Refused { what: String },
    /// The program cannot be executed.
    #[error("exec: {program:?}: {problem}")]
    Program { program: String, problem: String },
    /// The kernel lets no process into a cgroup: it passes controllers on to those below it, or is gone.
    #[error("join the cgroup")]
    CgroupClosed { source: Cause },
    #[error("container-init ended before it was ready")]
    Died,
    #[error("container-init was not ready after {seconds} s")]
    Deadline { seconds: u64 },
}

impl ContainerError {
    pub(super) fn refused(what: impl fmt::Display) -> Self {
        Self::Refused { what: capped(&what.to_string()) }
    }

    pub(super) fn program(program: &str, problem: &str) -> Self {
        Self::Program { program: capped(program), problem: capped(problem) }
    }

    /// The message with its cause, as shown to the user.
    pub fn chain(&self) -> String {
        match self {
            Self::Step { source, .. } | Self::CgroupClosed { source } => format!("{self}: {source}"),
            Self::Refused { .. } | Self::Program { .. } | Self::Died | Self::Deadline { .. } => {
                self.to_string()
            }
        }
    }
}

/// What the kernel answered, or what was found instead of what is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub errno: Option<i32>,
    pub text: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self { errno: Some(errno), text: errno_text(errno) },
            None => Self { errno: None, text: capped(&error.to_string()) },
        }
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self { errno: None, text: capped(&text) }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<bulkhead_protocol::packet::PacketError> for Cause {
    fn from(error: bulkhead_protocol::packet::PacketError) -> Self {
        let source = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
        format!("{error}{source}").into()
    }
}

/// The kernel's words in the form that callers match: small first letter, no number behind.
pub(super) fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

/// Names the step and the object of a failure where it happens.
pub(super) trait During<T> {
    fn during(self, step: &'static str, object: impl fmt::Display) -> Result<T, ContainerError>;
}

impl<T, E: Into<Cause>> During<T> for Result<T, E> {
    fn during(self, step: &'static str, object: impl fmt::Display) -> Result<T, ContainerError> {
        self.map_err(|error| ContainerError::Step {
            step: step.into(),
            object: capped(&object.to_string()),
            source: error.into(),
        })
    }
}

fn capped(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
