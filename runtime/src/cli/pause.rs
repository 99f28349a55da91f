//! `bulkhead pause`: stops every process of a container where it is. The microVM goes on.

use bulkhead_protocol::id::ContainerId;
use containerd_shim_protos::api::PauseRequest;

use super::Context;
use crate::{
    api::{
        client::bounded,
        container::{Container, refused},
    },
    error::Error,
};

/// Stop all processes of a container until `resume`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id.parse()?;
        let step = |error: Error| error.during(format!("pause {id}"));
        let container = Container::open(&context.root, &id).map_err(|e| step(e.into()))?;
        let request = PauseRequest { id: id.to_string(), ..Default::default() };
        let paused = container.call(async |server| server.task.pause(bounded(), &request).await);
        paused.map_err(|error| step(refused(error)))?;
        Ok(0)
    }
}
