//! PID 1 of the guest, and in a process of its own the set-up of each container (`container-init`).

use std::{env, error::Error, process, process::ExitCode, sync::Arc};

use bulkhead_agent::{
    boot,
    container::{self, Layout},
    control,
    reaper::Reaper,
    relay,
    sandbox::{Sandbox, Shared},
    say,
    service::Service,
    stdio::{listener, pending::PendingStreams},
    watches::Watches,
};
use bulkhead_sys::loopback;

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|arg| arg == "container-init") {
        return container::init::main();
    }
    if process::id() != 1 {
        say!("this is PID 1 of a Bulkhead guest: it is not run by hand");
        return ExitCode::FAILURE;
    }
    boot::reset_on_panic();
    if let Err(error) = run() {
        say!("{}", bulkhead_sys::chain(&*error));
    }
    boot::reset()
}

fn run() -> Result<(), Box<dyn Error>> {
    boot::set_up()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

/// Until the host goes away.
async fn serve() -> Result<(), Box<dyn Error>> {
    let reaper = Reaper::start()?;
    let streams = Arc::new(PendingStreams::default());
    // Before the greeting: the host may open streams as soon as it has read it.
    listener::start(streams.clone())?;
    let layout = Layout::guest();
    let sandbox = Sandbox::new(Shared { reaper, streams, layout: layout.clone() });
    let sockets = layout.volumes.sockets().clone();
    relay::start(sandbox.clone(), sockets.clone())?;
    let service = Service::new(sandbox, sockets, Watches::new(&layout.share, layout.volumes.clone()));
    let mut host = control::connect().await?;
    control::greet(&mut host).await?;
    // While the host prepares its first request. What it sends meanwhile waits in the socket.
    container::prepare(&layout);
    loopback::bring_up()?;
    control::serve(host, service).await?;
    say!("the host has closed the control stream");
    Ok(())
}
