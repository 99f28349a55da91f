//! `bulkhead resume`: lets a paused container go on.

use bulkhead_protocol::id::ContainerId;
use containerd_shim_protos::api::ResumeRequest;

use super::Context;
use crate::{
    api::{
        client::bounded,
        container::{Container, refused},
    },
    error::Error,
};

/// Let the processes of a paused container go on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id.parse()?;
        let step = |error: Error| error.during(format!("resume {id}"));
        let container = Container::open(&context.root, &id).map_err(|e| step(e.into()))?;
        let request = ResumeRequest { id: id.to_string(), ..Default::default() };
        let resumed = container.call(async |server| server.task.resume(bounded(), &request).await);
        resumed.map_err(|error| step(refused(error)))?;
        Ok(0)
    }
}
