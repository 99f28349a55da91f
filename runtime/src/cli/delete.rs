//! `bulkhead delete`: removes what a container has left, by its journal.

use std::time::Duration;

use bulkhead_protocol::id::ContainerId;

use super::Context;
use crate::{
    error::Error,
    sandbox::{container::Container, status::Status},
    state::{Stage, StateDir, StateError, Undo, undo},
};

/// For the server of a stopped container to end by itself: the last output is delivered, the guest powers off.
pub(super) const STOPPING: Duration = Duration::from_secs(12);
/// For a killed container to be known as stopped, before it goes by force.
const KILLED: Duration = Duration::from_secs(5);

/// Remove a stopped container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kill it first if it runs; no error if it does not exist
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
            match Container::open(&context.root, id).map_err(Error::from).and_then(|c| self.stop(&c)) {
                // Whatever keeps it from stopping in good order, force does not ask.
                Err(error) if self.force && !matches!(error, Error::State(StateError::Missing { .. })) => {
                    context.log.debug(&error.chain());
                }
                other => other?,
            }
        } else if !self.force {
            // A creation that goes on holds the lock; one that was cut off does not, and may be removed.
            return match dir.try_lock()? {
                Some(locked) => Ok(undo(&locked, &Undo::everything())?),
                None => Err(StateError::Creating { id: id.clone() }.into()),
            };
        }
        Ok(remove(context, StateDir::open(&context.root, id)?)?)
    }

    /// Waits for the end of a stopped container, kills a created one, and a running one when forced.
    fn stop(&self, container: &Container) -> Result<(), Error> {
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
                // One that ends in this moment is as good.
                let _ = container.kill(libc::SIGKILL.unsigned_abs(), false);
                container.wait_stopped(KILLED)?;
            }
        }
        container.wait_gone(STOPPING)?;
        Ok(())
    }
}

/// Undoes the journal, whatever the container is at, and runs the hooks that follow. Of several commands only one comes
/// past the lock.
pub(super) fn remove(context: &Context, dir: StateDir) -> Result<(), StateError> {
    let dir = dir.lock()?;
    // Without a record there was no container, and none of its hooks ran but those that its creation has undone.
    let record = dir.record().ok();
    undo(&dir, &Undo::everything())?;
    if let Some(record) = record {
        record.subject().poststop(&context.log);
    }
    Ok(())
}
