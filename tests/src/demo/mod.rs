//! What `make demo` shows: two real workloads, each in its own microVM, by the public command `bulkhead run`.
//!
//! ```text
//!  rootfs:    recipe ─mmdebstrap─▶ cache/rootfs/<hash of the recipe>        on the build machine, once
//!  workload:  rootfs + tmpfs ─overlay─▶ bundle ─bulkhead run─▶ output       where KVM works
//! ```
//!
//! A workload's bundle is made by `bulkhead spec` and changed where a user would change it.

pub mod rootfs;
pub mod workload;

use std::io;
use std::path::{Path, PathBuf};

/// Why a demonstration stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{step} {}", .path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error("start {program}")]
    Spawn { program: String, source: io::Error },
    #[error("{program} ended with {status}")]
    Failed { program: String, status: String },
    #[error("apt knows no mirror for {suite}")]
    NoMirror { suite: String },
    #[error("{what}: the bytes that came back are not those that went in")]
    Differs { what: &'static str },
    #[error("parse {}", .path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
}

fn file(step: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_owned();
    move |source| Error::File { step, path, source }
}
