//! The containers of a sandbox by id, and where their actors hear commands.
//!
//! An id is reserved before anything is made, and free again when the container is deleted or was never made.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bulkhead_protocol::{id::ContainerId, limits};
use tokio::sync::mpsc;

use super::{command::Command, error::SandboxError};

/// Clones share one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry(Arc<Mutex<HashMap<ContainerId, Slot>>>);

#[derive(Debug)]
enum Slot {
    Creating,
    Made(mpsc::Sender<Command>),
}

/// A reserved id. Dropping it frees the id.
#[derive(Debug)]
pub(super) struct Reservation {
    id: ContainerId,
    registry: Registry,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.registry.containers().remove(&self.id);
    }
}

impl Reservation {
    pub(super) fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The container is made: from now on its actor can be asked.
    pub(super) fn announce(&self, actor: mpsc::Sender<Command>) {
        self.registry.containers().insert(self.id.clone(), Slot::Made(actor));
    }
}

impl Registry {
    /// # Errors
    /// The id is taken, or the sandbox has `limits::CONTAINERS`.
    pub(super) fn reserve(&self, id: ContainerId) -> Result<Reservation, SandboxError> {
        let mut containers = self.containers();
        if containers.contains_key(&id) {
            return Err(SandboxError::ContainerExists(id));
        }
        if containers.len() >= limits::CONTAINERS {
            return Err(SandboxError::TooManyContainers);
        }
        containers.insert(id.clone(), Slot::Creating);
        drop(containers);
        Ok(Reservation { id, registry: self.clone() })
    }

    /// Where to ask a container.
    ///
    /// # Errors
    /// There is none of this id, or it is still being made.
    pub(super) fn actor(&self, id: &ContainerId) -> Result<mpsc::Sender<Command>, SandboxError> {
        match self.containers().get(id) {
            Some(Slot::Made(actor)) => Ok(actor.clone()),
            Some(Slot::Creating) | None => Err(SandboxError::NoContainer(id.clone())),
        }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Slot>> {
        // Each critical section leaves the table whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
