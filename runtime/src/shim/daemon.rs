//! The daemon of a pod: serves the Task API until containerd has no use for it any more.

use std::{
    fs, io,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    sync::Arc,
    time::Duration,
};

use containerd_shim_protos::{sandbox_async::create_sandbox, shim_async::create_task};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use ttrpc::asynchronous::Server;

use super::{
    arguments::Arguments, command::Commands, events::Publisher, place, reaper::Reaper,
    sandbox::SandboxService, service::TaskService, tasks::Tasks,
};
use crate::log::note;

/// The descriptor on which the daemon finds its socket.
pub(super) const LISTENER_FD: i32 = 3;
/// The name of the service in each version of the API; the messages are the same.
const VERSIONS: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];
/// For the last events to be taken, and the last answers.
const LAST: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonError {
    #[error("{step}")]
    Io { step: &'static str, source: io::Error },
    #[error("serve the Task API")]
    Serve(#[source] ttrpc::Error),
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::Io { step, source }
}

/// The whole process.
///
/// # Errors
/// When it cannot serve.
pub(super) fn serve(arguments: &Arguments) -> Result<(), DaemonError> {
    let Some(pod) = &arguments.id else { return Ok(()) };
    let _ = rustix::thread::set_name(c"bulkhead-shim");
    // SAFETY: `start` made this descriptor for us, and this is the only place that takes it.
    let listener = UnixListener::from(unsafe { OwnedFd::from_raw_fd(LISTENER_FD) });
    let close = rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC);
    close.map_err(|errno| failed("keep the socket")(errno.into()))?;
    let root = place::root(&arguments.namespace);
    fs::create_dir_all(&root).map_err(failed("make the state directory"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("start"))?;
    let served = runtime.block_on(async {
        stay()?;
        let reaper = Reaper::start().map_err(failed("reap children"))?;
        let namespace = arguments.namespace.clone();
        let commands = Commands { namespace, root, debug: arguments.debug, reaper };
        let publisher = Publisher::start(&arguments.namespace);
        let tasks = Tasks::new(commands, publisher.clone(), place::pod(&arguments.namespace, pod));
        let over = Arc::new(Notify::new());
        let sandbox = SandboxService::new(pod.clone(), tasks.clone(), over.clone());
        let mut server = listen(listener, TaskService { tasks, over: over.clone() }, sandbox).await?;
        over.notified().await;
        publisher.flushed(LAST).await;
        let _ = tokio::time::timeout(LAST, server.shutdown()).await;
        Ok(())
    });
    // A terminal's thread may wait for a client that does not come.
    runtime.shutdown_background();
    if let Err(error) = fs::remove_file(place::socket(&arguments.namespace, pod)) {
        note(&format!("remove the socket: {error}"));
    }
    served
}

/// Only `Shutdown` ends it: signals to containerd's group are not for containers.
fn stay() -> Result<(), DaemonError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut caught = signal(kind).map_err(failed("catch signals"))?;
        tokio::spawn(async move { while caught.recv().await.is_some() {} });
    }
    Ok(())
}

async fn listen(
    listener: UnixListener,
    service: TaskService,
    sandbox: SandboxService,
) -> Result<Server, DaemonError> {
    listener.set_nonblocking(true).map_err(failed("listen"))?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed("listen"))?;
    let service = Arc::new(service);
    let mut server = Server::new().add_listener(listener.into());
    for name in VERSIONS {
        // The crate knows the newest name alone.
        let services = create_task(service.clone()).into_values().map(|service| (name.to_owned(), service));
        server = server.register_service(services.collect());
    }
    server = server.register_service(create_sandbox(Arc::new(sandbox)));
    server.start().await.map_err(DaemonError::Serve)?;
    Ok(server)
}
