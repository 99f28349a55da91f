//! `containerd-shim-bulkhead-v2`: containerd's door to the same engine, for docker, `ctr` and Kubernetes pods.
//!
//!   containerd ─start─▶ start: prints the address of a daemon ─▶ daemon, one per pod, or per container without a pod
//!   containerd ─Task API, v2 and v3─▶ service ─▶ tasks ─▶ command: `bulkhead create`, `start`, `exec`, `delete`
//!                                                └─▶ api::container: signals, updates, figures
//!   containerd ◀─events─ publisher ◀─ tasks ◀─ reaper: the exits of the proxies, whose parent the daemon becomes
//!   containerd ─delete─▶ cleanup: what a daemon that is gone has left of one container
//!
//! A container is made by the command line's own commands, so both doors make the same container. Its streams are those of its
//! proxy: bytes never pass the daemon, but for terminals. The daemon holds nothing that a container needs: when it is killed the
//! container goes on, until containerd has it cleaned up.
//!
//! The program is `bulkhead` itself, under another name.

mod arguments;
mod cleanup;
mod command;
mod daemon;
mod events;
mod info;
mod logger;
mod mounts;
mod place;
mod pod;
mod process;
mod pump;
mod reaper;
mod sandbox;
mod service;
mod start;
mod stdio;
mod tasks;
mod terminal;

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use arguments::{Action, Arguments};
use bulkhead_sys::{chain, text::printable};

use crate::log::note;

/// The name by which containerd finds it: `runtime_type = "io.containerd.bulkhead.v2"`.
pub const NAME: &str = "containerd-shim-bulkhead-v2";

/// Whether this process was started as the shim.
pub fn is_called() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().map(OsStr::as_bytes) == Some(NAME.as_bytes())
}

/// Why the program does not do what it was called for.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error(transparent)]
    Arguments(#[from] arguments::ArgumentsError),
    #[error(transparent)]
    Start(#[from] start::StartError),
    #[error(transparent)]
    Daemon(#[from] daemon::DaemonError),
    #[error(transparent)]
    Cleanup(#[from] cleanup::CleanupError),
    #[error(transparent)]
    Info(#[from] info::InfoError),
    #[error("write the answer")]
    Answer(#[source] io::Error),
}

/// The whole process: its exit code.
pub fn main() -> u8 {
    match run() {
        Ok(answer) => match io::stdout().lock().write_all(&answer).map_err(ShimError::Answer) {
            Ok(()) => 0,
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    }
}

/// containerd shows standard error of a shim that fails.
fn failed(error: &ShimError) -> u8 {
    note(&printable(&format!("{NAME}: {}", chain(error))));
    1
}

fn run() -> Result<Vec<u8>, ShimError> {
    let arguments = Arguments::parse(std::env::args_os().skip(1))?;
    Ok(match &arguments.action {
        Action::Start => start::start(&arguments)?,
        Action::Delete => cleanup::cleanup(&arguments)?,
        Action::Serve => {
            daemon::serve(&arguments)?;
            Vec::new()
        }
        Action::Info => info::info()?,
        Action::Features => info::features()?,
        Action::Version => format!(
            "{NAME}:\n  Version:  {}\n  Revision: {}\n",
            env!("CARGO_PKG_VERSION"),
            option_env!("BULKHEAD_REVISION").unwrap_or("unknown"),
        )
        .into_bytes(),
    })
}
