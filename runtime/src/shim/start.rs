//! `start`: has a daemon for the pod of a bundle, and tells containerd its address.
//!
//!   stdin: nothing, options, or BootstrapParams ─▶ the daemon of the pod is there, or is started ─▶ `address` ─▶ the answer
//!
//! The answer has the form of the question: BootstrapParams (containerd 2.3) get a BootstrapResult, all others the address as
//! text, which every containerd takes. The socket is bound here, before there is a daemon, so nobody polls for it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _},
            net::UnixListener,
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bulkhead_protocol::id::ContainerId;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message as _;

use super::{NAME, arguments::Arguments, daemon::LISTENER_FD, place};
use crate::{
    sandbox::pass_as,
    store::{StateError, connect_path, write_atomically},
};

/// Bytes of options, or of BootstrapParams.
const STDIN_MAX: u64 = 1 << 20;
/// The version of the Task API that is offered to who can ask for one.
const VERSION: i32 = 3;

#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("read the bundle")]
    Bundle(#[source] io::Error),
    #[error("read standard input")]
    Stdin(#[source] io::Error),
    #[error("make the socket {}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("start the shim's daemon")]
    Spawn(#[source] io::Error),
    #[error(transparent)]
    Address(#[from] StateError),
    #[error("write the answer")]
    Answer(#[source] protobuf::Error),
}

/// What to print.
///
/// # Errors
/// When there is no daemon then.
pub(super) fn start(arguments: &Arguments) -> Result<Vec<u8>, StartError> {
    let Some(id) = &arguments.id else { return Ok(Vec::new()) };
    let mut asked = Vec::new();
    io::stdin().lock().take(STDIN_MAX).read_to_end(&mut asked).map_err(StartError::Stdin)?;
    let bundle = std::env::current_dir().map_err(StartError::Bundle)?;
    let pod = place::pod_of(&bundle, id).map_err(StartError::Bundle)?;
    let path = place::socket(&arguments.namespace, &pod);
    if connect_path(&path).is_err() {
        let failed = |source| StartError::Socket { path: path.clone(), source };
        let listener = bind(&path).map_err(failed)?;
        spawn(arguments, &pod, listener, &bundle).map_err(StartError::Spawn)?;
    }
    let address = format!("unix://{}", path.display());
    // containerd before 2.0 and CRI-O read it there after a restart of theirs.
    write_atomically(&bundle.join("address"), address.as_bytes())?;
    answer(&asked, arguments, id, address)
}

/// Options parse as BootstrapParams too, so the ids decide.
fn answer(
    asked: &[u8],
    arguments: &Arguments,
    id: &ContainerId,
    address: String,
) -> Result<Vec<u8>, StartError> {
    let is_bootstrap = BootstrapParams::parse_from_bytes(asked)
        .is_ok_and(|params| params.instance_id == id.as_str() && params.namespace == arguments.namespace);
    if !is_bootstrap {
        return Ok(address.into_bytes());
    }
    let protocol = "ttrpc".to_owned();
    let result = BootstrapResult { version: VERSION, address, protocol, ..Default::default() };
    result.write_to_bytes().map_err(StartError::Answer)
}

/// One that is there belonged to a daemon that is gone.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o711).create(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Whoever connects may do all that root may.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    UnixListener::bind(path)
}

fn spawn(arguments: &Arguments, pod: &ContainerId, listener: UnixListener, bundle: &Path) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).args(["-namespace", &arguments.namespace, "-id", pod.as_str()]);
    if arguments.debug {
        command.arg("-debug");
    }
    command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_of(bundle));
    pass_as(&mut command, OwnedFd::from(listener), LISTENER_FD);
    let leave = || rustix::process::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(leave) };
    // Its parent is containerd's subreaper, or init, as soon as this process has ended.
    command.spawn().map(drop)
}

/// The fifo through which containerd takes the messages of a shim into its own log. Read and write, so that a containerd that is
/// gone is no error for who writes; without blocking, so that it is no wait either.
fn log_of(bundle: &Path) -> Stdio {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    match options.open(bundle.join("log")) {
        Ok(log) => Stdio::from(log),
        Err(_) => Stdio::null(),
    }
}

#[cfg(test)]
mod tests;
