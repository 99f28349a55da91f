//! `bulkhead resume`: lets a paused container go on.

use containerd_shim_protos::api::ResumeRequest;

use super::{Context, with_container};
use crate::{
    api::{client::bounded, container::refused},
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
        with_container(context, &self.id, "resume", |container| {
            let request = ResumeRequest { id: self.id.clone(), ..Default::default() };
            let resumed = container.call(async |server| server.task.resume(bounded(), &request).await);
            resumed.map_err(refused)?;
            Ok(0)
        })
    }
}
