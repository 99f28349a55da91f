//! `delete`: containerd runs it after the end of each container, and when a daemon is gone or silent. It takes what is left of
//! one container, within the five seconds that containerd waits, and is content when nothing is left.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message as _;

use super::{
    arguments::Arguments,
    command::bulkhead,
    mounts::{self, MountError},
    place,
    pod::{self, PodError},
};
use crate::{api::client::KILLED, log::note, store::connect_path, time::timestamp};

/// containerd kills this program after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Debug, thiserror::Error)]
pub(super) enum CleanupError {
    #[error("find the bundle")]
    Bundle(#[source] io::Error),
    #[error("run bulkhead delete")]
    Delete(#[source] io::Error),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error("remove the socket of a daemon that is gone")]
    Socket(#[source] io::Error),
    #[error("write the answer")]
    Answer(#[source] protobuf::Error),
}

/// What to print.
///
/// # Errors
/// What cannot be taken away.
pub(super) fn cleanup(arguments: &Arguments) -> Result<Vec<u8>, CleanupError> {
    let Some(id) = &arguments.id else { return Ok(Vec::new()) };
    let bundle = match &arguments.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(CleanupError::Bundle)?,
    };
    delete(&place::root(&arguments.namespace), id.as_str()).map_err(CleanupError::Delete)?;
    mounts::unmount_all(&mounts::rootfs(&bundle))?;
    pod::clear(&place::pod(&arguments.namespace, id))?;
    forget(&place::socket(&arguments.namespace, id)).map_err(CleanupError::Socket)?;
    let exited_at = timestamp(SystemTime::now());
    let response = DeleteResponse { exit_status: KILLED.into(), exited_at, ..Default::default() };
    response.write_to_bytes().map_err(CleanupError::Answer)
}

/// Removes the socket of a daemon that is gone. One that lives removes its own.
fn forget(socket: &Path) -> io::Result<()> {
    match connect_path(socket) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(socket),
        _ => Ok(()),
    }
}

/// Goes on by itself when it takes longer.
fn delete(root: &PathBuf, id: &str) -> io::Result<()> {
    let mut command = bulkhead();
    command.arg("--root").arg(root).args(["delete", "--force", id]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match child.try_wait()? {
            None => sleep(Duration::from_millis(20)),
            Some(status) => {
                if !status.success() {
                    note(&format!("bulkhead delete --force {id}: {status}"));
                }
                return Ok(());
            }
        }
    }
    note(&format!("bulkhead delete --force {id} takes longer, and goes on"));
    Ok(())
}

#[cfg(test)]
mod tests;
