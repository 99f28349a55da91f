//! `bulkhead delete`: removes what a container has left, by its journal.

use std::time::Duration;

use bulkhead_protocol::id::ContainerId;

use super::Context;
use crate::{
    error::Error,
    hooks::Subject,
    sandbox::{container::Container, status::Status},
    store::{Record, Stage, StateDir, StateError},
    undo::{self, UndoError},
};

/// For the server of a stopped container to end by itself: the last output is delivered, the guest powers off.
pub(super) const STOPPING: Duration = Duration::from_secs(12);

/// Remove a stopped container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kill it first if it runs, and others in its microVM with it; no error if it does not exist
    #[arg(short, long)]
    force: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id.parse()?;
        match self.delete(context, &id) {
            Err(Error::State(StateError::Missing { .. })) if self.force => Ok(0),
            other => other.map(|()| 0).map_err(|error| error.during(format!("delete {id}"))),
        }
    }

    fn delete(&self, context: &Context, id: &ContainerId) -> Result<(), Error> {
        let dir = StateDir::open(&context.root, id)?;
        if dir.stage() == Stage::Created {
            let guests = guests(context, id)?;
            let stop = |container: Container| self.stop(&container, &guests);
            match Container::open(&context.root, id).map_err(Error::from).and_then(stop) {
                // Whatever keeps it from stopping in good order, force does not ask.
                Err(error) if self.force && !matches!(error, Error::State(StateError::Missing { .. })) => {
                    context.log.debug(&error.chain());
                }
                other => other?,
            }
        } else if !self.force {
            // A creation that goes on holds the lock; one that was cut off does not, and may be removed.
            return match dir.try_lock()? {
                Some(locked) => Ok(undo::everything(&locked)?),
                None => Err(StateError::Creating { id: id.clone() }.into()),
            };
        }
        Ok(remove(context, StateDir::open(&context.root, id)?)?)
    }

    /// Waits for the end of a stopped container, kills a created one, and a running one when forced. `guests` live in
    /// its microVM.
    fn stop(&self, container: &Container, guests: &[String]) -> Result<(), Error> {
        match container.status()? {
            Status::Stopped => {}
            running @ (Status::Starting | Status::Running | Status::Paused | Status::Creating)
                if !self.force =>
            {
                let id = &container.record.id;
                let status = running.name();
                return Err(Error::Refused(format!(
                    "cannot delete container {id} that is not stopped: {status}"
                )));
            }
            Status::Created | Status::Starting | Status::Running | Status::Paused | Status::Creating => {
                container.end(false)?;
            }
        }
        if guests.is_empty() {
            container.wait_gone(STOPPING)?;
        } else if !self.force {
            let (id, guests) = (&container.record.id, guests.join(", "));
            return Err(Error::Refused(format!(
                "cannot delete container {id}: its microVM is that of {guests}"
            )));
        }
        Ok(())
    }
}

/// The containers that run in the microVM of another one. A record that cannot be read keeps nobody else from being
/// deleted.
fn guests(context: &Context, id: &ContainerId) -> Result<Vec<String>, StateError> {
    let lives_there = |record: &Record| record.sandbox.as_ref() == Some(id) && record.proxy.is_alive();
    let read = StateDir::records(&context.root)?
        .into_iter()
        .filter_map(|record| record.map_err(|error| context.log.warn(&crate::error::chain(&error))).ok());
    Ok(read.filter(lives_there).map(|record| record.id).collect())
}

/// Undoes the journal, whatever the container is at, and runs the hooks that follow. Of several commands only one comes
/// past the lock.
pub(super) fn remove(context: &Context, dir: StateDir) -> Result<(), UndoError> {
    let dir = dir.lock()?;
    // Without a record there was no container, and none of its hooks ran but those that its creation has undone.
    let record = dir.record().ok();
    let left = Container::open(&context.root, dir.id()).map_err(Error::from).and_then(|c| c.leave());
    if let Err(error) = left {
        // Without its proxy nothing of it goes on; the share of a sandbox ends with the sandbox.
        context.log.debug(&error.chain());
    }
    undo::everything(&dir)?;
    if let Some(record) = record {
        Subject::from(&record).poststop(&context.log);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
