//! The lab: a machine with a working `/dev/kvm`, on any build machine.
//!
//! ```text
//!  bulkhead-lab run/exec ──unix socket──▶ supervisor ──TCP in its own netns──▶ QEMU (TCG, nested SVM)
//!     client                                  │ one per lab, owns                  └▶ guest: init, serve
//!                                             └ virtiofsd ×3 (`/` and engines read-only, `/lab/out` read-write)
//! ```
//!
//! One supervisor process per lab holds QEMU and both file servers; they die with it (parent-death signal), and its
//! mounts live in a private mount namespace, so there is nothing to clean up after a crash. A client connects to the
//! supervisor's socket once per command; the bytes go through to the guest's `serve`, which starts the command and
//! speaks [`wire`]. The lab's root is the build machine's own root with the engines' programs and a tmpfs
//! overlay on top, so whatever was built is there at the same path, and nothing done in the lab stays.

pub mod apt;
pub mod assets;
pub mod client;
pub mod decision;
pub mod engines;
pub mod guest;
pub mod initramfs;
pub mod machine;
pub mod mend;
pub mod newer;
pub mod places;
pub mod qemu;
pub mod soak;
pub mod supervisor;
pub mod terminal;
mod tools;
pub mod variant;
pub mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What can go wrong around a lab. The command's own failure is not an error but an [`wire::Exit`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{step} {}", .path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error("{step}")]
    System { step: &'static str, source: io::Error },
    #[error("start {program}")]
    Spawn { program: String, source: io::Error },
    #[error("{command} failed with {status}{}", detail(.output))]
    Tool { command: String, status: String, output: String },
    #[error("have containerd, docker and podman of Debian {suite}, which the tests of newer engines need")]
    Newer { suite: &'static str, source: Box<Self> },
    #[error("{what} is missing")]
    Missing { what: String, hint: &'static str },
    #[error("a lab named {name} is already up")]
    AlreadyUp { name: String },
    #[error("no lab named {name} is up")]
    NotUp { name: String },
    #[error("the lab did not come up: {reason}")]
    Boot { reason: String },
    #[error("the lab died; its console ended with:\n{console}")]
    Died { console: String },
    #[error("the command was still running after {after:?}; the lab's console ended with:\n{console}")]
    Deadline { after: Duration, console: String },
    #[error("the lab could not start the command: {reason}")]
    Refused { reason: String },
    #[error("talk to the lab")]
    Wire { source: io::Error },
}

impl Error {
    /// What the reader can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { hint, .. } => Some(hint),
            Self::Newer { .. } => {
                Some("apt's mirror must carry that release; `--without-engines` does without")
            }
            Self::NotUp { .. } => Some("bulkhead-lab up"),
            Self::AlreadyUp { .. } => Some("bulkhead-lab exec uses it, bulkhead-lab down ends it"),
            _ => None,
        }
    }

    pub(crate) fn file(step: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { step, path, source }
    }

    pub(crate) fn system<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { step, source: source.into() }
    }
}

fn detail(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}

/// The last `lines` lines of a text file, for error messages; empty when there is no such file.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).replace('\r', "");
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
