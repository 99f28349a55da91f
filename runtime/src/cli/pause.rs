//! `bulkhead pause`: stops every process of a container where it is. The microVM goes on.

use containerd_shim_protos::api::PauseRequest;

use super::{Context, with_container};
use crate::{
    api::{client::bounded, container::refused},
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
        with_container(context, &self.id, "pause", |container| {
            let request = PauseRequest { id: self.id.clone(), ..Default::default() };
            let paused = container.call(async |server| server.task.pause(bounded(), &request).await);
            paused.map_err(refused)?;
            Ok(0)
        })
    }
}
