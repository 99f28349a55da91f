//! Removes a container: in good order when it has stopped, by force whatever it is at. It takes the directories alone.
//!
//!   stop (kill, wait for the processes) ─▶ lock ─▶ out of a sandbox that goes on ─▶ undo the journals ─▶ poststop hooks
//!
//! The container in whose cgroup the microVM is takes the sandbox along.

use std::{path::Path, time::Duration};

use bulkhead_protocol::{id::ContainerId, limits, sandbox::CreationRequest};
use bulkhead_sys::chain;

use super::{
    client::{bounded, call},
    container::{Container, RequestError},
};
use crate::{
    container::status::Status,
    hooks::Subject,
    log::Log,
    store::{Record, SandboxDir, Stage, StateDir, StateError},
    undo,
};

/// For the server of a stopped container to end by itself: the last output is delivered, the VM is stopped.
const STOPPING: Duration = Duration::from_secs(12);

/// How long that may take.
pub fn stopping(record: &Record) -> Duration {
    if record.disks { STOPPING + limits::DISKS_GONE } else { STOPPING }
}

/// Deletes a container that has stopped, or was created and never ran; with `force` any.
///
/// # Errors
/// When its status does not allow it, or something of it cannot be removed.
pub fn delete(root: &Path, id: &ContainerId, force: bool, log: &Log) -> Result<(), RequestError> {
    let dir = StateDir::open(root, id)?;
    if dir.stage() == Stage::Created {
        match Container::open(root, id).map_err(RequestError::from).and_then(|c| stop(&c, root, force, log)) {
            // Whatever keeps it from stopping in good order, force does not ask.
            Err(error) if force && !matches!(error, RequestError::State(StateError::Missing { .. })) => {
                log.debug(&chain(&error));
            }
            other => other?,
        }
    } else if force {
        abort(&dir, root, log);
    } else {
        // A creation that goes on holds the lock; one that was cut off does not, and may be removed.
        return match dir.try_lock()? {
            Some(locked) => Ok(undo::container(&locked)?),
            None => Err(StateError::Creating { id: id.clone() }.into()),
        };
    }
    remove(root, StateDir::open(root, id)?, log)
}

/// Has the server give up a creation that goes on, so that it lets go of the lock. One that was cut off has no server.
fn abort(dir: &StateDir, root: &Path, log: &Log) {
    let aborted = || -> Result<(), RequestError> {
        let Some(record) = dir.creating()? else { return Ok(()) };
        let sandbox = SandboxDir::open(root, &record.sandbox)?;
        let request = CreationRequest { container_id: record.id, ..Default::default() };
        Ok(call(sandbox.as_ref(), async |server| server.sandbox.abort_create(bounded(), &request).await)
            .map(drop)?)
    };
    if let Err(error) = aborted() {
        log.debug(&chain(&error));
    }
}

/// Waits for the end of a container whose program has ended, kills a created one, and a running one when forced.
fn stop(container: &Container, root: &Path, force: bool, log: &Log) -> Result<(), RequestError> {
    let id = &container.record.id;
    match container.status()? {
        Status::Stopped => {}
        running @ (Status::Starting | Status::Running | Status::Paused | Status::Creating) if !force => {
            if running == Status::Creating || !container.wait_ended()? {
                let status = running.name();
                return Err(RequestError::Status(format!(
                    "cannot delete container {id} that is not stopped: {status}"
                )));
            }
        }
        Status::Created | Status::Starting | Status::Running | Status::Paused | Status::Creating => {
            container.end(false)?;
        }
    }
    let others = if container.hosts_sandbox() { others(root, &container.record, log)? } else { Vec::new() };
    if others.is_empty() {
        container.wait_gone(stopping(&container.record))?;
    } else if !force {
        return Err(RequestError::Status(format!(
            "cannot delete container {id}: its microVM also runs {}; delete these first, or all with --force",
            others.join(", ")
        )));
    }
    Ok(())
}

/// The other containers that run in the same sandbox. A record that cannot be read keeps nobody from being deleted.
fn others(root: &Path, record: &Record, log: &Log) -> Result<Vec<String>, StateError> {
    let runs_there = |other: &Record| {
        other.sandbox == record.sandbox
            && other.id != record.id
            && other.proxy.is_some_and(|proxy| proxy.is_alive())
    };
    let read = StateDir::records(root)?
        .into_iter()
        .filter_map(|record| record.map_err(|error| log.warn(&chain(&error))).ok());
    Ok(read.filter(runs_there).map(|record| record.id).collect())
}

/// Undoes the journal, whatever the container is at, and runs the hooks that follow. Of several commands only one comes
/// past the lock.
///
/// # Errors
/// What cannot be removed.
pub fn remove(root: &Path, dir: StateDir, log: &Log) -> Result<(), RequestError> {
    let dir = dir.lock()?;
    // Without a record there was no container, and none of its hooks ran but those that its creation has undone.
    let record = dir.record().ok();
    let left = Container::open(root, dir.id()).map_err(RequestError::from).and_then(|c| c.leave());
    if let Err(error) = left {
        // Without its proxy nothing of it goes on; the share of a sandbox ends with the sandbox.
        log.debug(&chain(&error));
    }
    undo::container(&dir)?;
    if let Some(record) = record {
        Subject::from(&record).poststop(log);
    }
    Ok(())
}
