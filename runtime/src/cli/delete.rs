//! `bulkhead delete`: removes what a container has left, by its journal.

use bulkhead_protocol::id::ContainerId;

use super::Context;
use crate::{
    api::{container::RequestError, removal},
    error::Error,
    store::StateError,
};

/// Remove a stopped container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kill the container first if it runs, and all others in its microVM. A container that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id.parse()?;
        match removal::delete(&context.root, &id, self.force, &context.log) {
            Err(RequestError::State(StateError::Missing { .. })) if self.force => Ok(0),
            other => other.map(|()| 0).map_err(|error| Error::from(error).during(format!("delete {id}"))),
        }
    }
}

#[cfg(test)]
mod tests;
