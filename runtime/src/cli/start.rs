//! `bulkhead start`: lets the program of a created container run.

use bulkhead_protocol::id::ContainerId;
use containerd_shim_protos::api::StartRequest;
use ttrpc::Code;

use super::Context;
use crate::{
    error::Error,
    hooks::Subject,
    sandbox::{
        client::{CallError, bounded},
        container::Container,
        status::Status,
    },
};

/// Run the program of a created container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id.parse()?;
        let step = |error: Error| error.during(format!("start {id}"));
        let container = Container::open(&context.root, &id).map_err(|e| step(e.into()))?;
        start(&container).map_err(step)?;
        poststart(&container).map_err(step)?;
        Ok(0)
    }
}

pub(super) fn start(container: &Container) -> Result<(), Error> {
    let request = StartRequest { id: container.record.id.clone(), ..Default::default() };
    match container.call(async |server| server.task.start(bounded(), &request).await) {
        Ok(_) => Ok(()),
        Err(CallError::Refused { code: Code::FAILED_PRECONDITION, .. }) => {
            let status = container.status()?;
            Err(Error::Refused(refusal(status).into()))
        }
        Err(CallError::Gone { .. }) => Err(Error::Refused(refusal(Status::Stopped).into())),
        Err(error) => Err(error.into()),
    }
}

/// Runs the hooks that follow the start. One that fails takes the container with it.
pub(super) fn poststart(container: &Container) -> Result<(), Error> {
    let record = &container.record;
    if let Err(error) = Subject::from(record).poststart(record.proxy.pid) {
        container.end(true)?;
        return Err(error.into());
    }
    Ok(())
}

fn refusal(status: Status) -> &'static str {
    match status {
        Status::Starting | Status::Running | Status::Paused => "cannot start an already running container",
        Status::Stopped => "cannot start a container that has stopped",
        Status::Creating | Status::Created => "cannot start a container that is being created",
    }
}
