//! The sandbox server: one process per sandbox, detached from the command that started it.
//!
//!   bootstrap socket (standard input) ─plan + descriptors─▶ host: journal, cgroup, share ─▶ VMM ─▶ Sandbox ─▶ serve ║ boot
//!     … ─▶ all containers over and nobody attached ─▶ stop the VM ─▶ last answers written ─▶ exit
//!
//! Until the command says that its creation is complete, its end is the server's end, and the state directory goes as
//! well: a creation that is cut off leaves nothing. A stopped container costs no process.

mod bootstrap;
mod error;
mod host;

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    limits,
    packet::{PacketError, PacketSocket},
    timeline::{Phase, Stamp},
};
use rustix::process::{WaitOptions, waitpid};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use ttrpc::asynchronous::Server;

pub(super) use self::bootstrap::{Failed, Order};
use self::{
    bootstrap::Descriptors,
    error::ServerError,
    host::{Host, limit_files, vacate_cgroup},
};
use super::{connections::Connections, sandbox::SandboxService, task::TaskService};
use crate::{
    container::Containers,
    error::chain,
    log::note,
    network::Namespace,
    sandbox::{
        Failure, Guest, HostCgroup, Parts, Sandbox, SandboxPlan,
        boot::{BootError, Inputs, boot},
        cgroup,
        clock::Clock,
        clock_source,
        nics::Nics,
        packets::Packets,
        resize::Machine,
        timeline::Timeline,
        vmm::{Spawned, Stamps, Vmm, processes::Processes},
    },
    store::{Entry, Journal, Role, StateDir, Undo, names, undo, write_atomically},
};

/// The word after which `main` below is meant.
pub const COMMAND: &str = "sandbox-server";
/// For the last answers to be taken by their clients.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// For what a VMM that is gone has said to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// For the VMM to be gone after SIGKILL.
const VMM_GONE: Duration = Duration::from_secs(5);

/// The whole process: its exit code.
pub fn main() -> u8 {
    // For ps and top: the kernel took the name from /proc/self/exe.
    let _ = rustix::thread::set_name(c"bulkhead-server");
    let socket = match bootstrap::take() {
        Ok(socket) => socket,
        Err(error) => {
            note(&format!("sandbox server: take the bootstrap socket: {error}"));
            return 1;
        }
    };
    match serve(&socket) {
        Ok(()) => 0,
        Err(error) => {
            note(&format!("sandbox server: {}", chain(&error)));
            let failed = Failed { message: chain(&error), hint: error.hint().map(Into::into) };
            let _ = socket.send(&failed, &[]);
            1
        }
    }
}

fn serve(socket: &PacketSocket) -> Result<(), ServerError> {
    host::shed()?;
    let (order, fds) = socket.receive::<Order>()?;
    let Order::Plan(plan) = order else { return Err(ServerError::Order) };
    let descriptors = Descriptors::agreed(fds, plan.network.is_some())?;
    let dir = StateDir::open(&plan.root, &plan.id)?;
    host::detach(&dir)?;
    let host = Host::set_up(&plan, &dir)?;
    let failed = ServerError::process("start the server's loop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(&failed)?;
    let bootstrap = rustix::io::fcntl_dupfd_cloexec(socket, 3).map_err(|e| failed(e.into()))?;
    let complete = runtime.block_on(run(&plan, &dir, host, descriptors, bootstrap.into()))?;
    if !complete {
        drop(runtime);
        discard(&dir)?;
    }
    Ok(())
}

/// The command that started the creation was cut off: what it left is removed.
fn discard(dir: &StateDir) -> Result<(), ServerError> {
    // A cgroup with a process in it cannot be removed, and this is one.
    let _ = cgroup::enter(cgroup::ROOT.as_ref(), std::process::id());
    let dir = StateDir::open(dir.path().parent().unwrap_or(dir.path()), dir.id())?;
    // If the lock is held, somebody else is at it, and kills this process in a moment.
    if let Some(locked) = dir.try_lock()? {
        undo(&locked, &Undo::everything())?;
    }
    Ok(())
}

/// A sandbox whose VMM waits for its boot request.
struct Assembled {
    sandbox: Arc<Sandbox>,
    vmm: Vmm,
    processes: Processes,
    stamps: Stamps,
    stderr: JoinHandle<()>,
    boot: Inputs,
    listener: OwnedFd,
}

impl Assembled {
    fn new(
        plan: &SandboxPlan,
        dir: &StateDir,
        host: Host,
        descriptors: Descriptors,
    ) -> Result<Self, ServerError> {
        let timeline = Timeline::default();
        timeline.add(Stamp { phase: Phase::Command, monotonic_ns: plan.command_ns });
        timeline.mark(Phase::ServerUp);
        let Spawned { vmm, processes, stamps, stderr } = Vmm::spawn(&plan.vmm, plan.cgroup.as_deref())?;
        // The VMM is in the cgroup, which nobody else takes from now on.
        let Host { share, cgroup } = host;
        let bounds = cgroup.map(|(_entrance, bounds)| bounds);
        limit_files()?;
        timeline.mark(Phase::VmmSpawned);
        let journal = dir.journal();
        journal.append(&Entry::Process { role: Role::Vmm, process: processes.outer() })?;
        let given = plan.network.clone().zip(descriptors.network.map(Namespace::received));
        let boot = Inputs {
            kernel: descriptors.kernel,
            initramfs: descriptors.initramfs,
            share: share.open()?,
            vsock_listener: dir.bind(names::VSOCK_SOCKET)?.into(),
            sizes: plan.sizes,
            debug_console: plan.debug,
            huge_pages: plan.huge_pages,
            strip_setuid: plan.strip_setuid,
            stable_tsc: clock_source::is_tsc(&clock_source::current(Path::new("/"))),
        };
        let cgroup = plan.cgroup.clone().map(|path| HostCgroup {
            path,
            scope: plan.scope.clone(),
            limits: plan.limits.clone(),
        });
        let sandbox = Sandbox::new(Parts {
            host_container: Some(plan.id.clone()),
            cgroup,
            machine: Machine::new(vmm.clone(), plan.sizes, bounds),
            processes: processes.clone(),
            nics: Nics::new(vmm.clone(), journal, plan.vhost_net, given),
            share,
            timeline,
        });
        Ok(Self { sandbox, vmm, processes, stamps, stderr, boot, listener: descriptors.listener })
    }
}

/// Runs the sandbox to its end; false when the creation was cut off.
async fn run(
    plan: &SandboxPlan,
    dir: &StateDir,
    host: Host,
    descriptors: Descriptors,
    bootstrap: PacketSocket,
) -> Result<bool, ServerError> {
    let assembled = Assembled::new(plan, dir, host, descriptors)?;
    let Assembled { sandbox, vmm, processes, stamps, stderr, boot, listener } = assembled;
    let containers = Containers::new(sandbox.clone(), plan.root.clone());
    tokio::spawn(reap());
    tokio::spawn(collect(stamps, sandbox.clone()));
    tokio::spawn(watch_vmm(vmm.clone(), processes.clone(), containers.clone()));
    let shutdown = Arc::new(Notify::new());
    let connections = Connections::new();
    let mut server = start_server(&containers, &shutdown, &connections, listener).await?;
    let failed = ServerError::process("listen to the command");
    let bootstrap = Packets::new(bootstrap).map_err(failed)?;
    tokio::spawn(bring_up(sandbox.clone(), vmm.clone(), processes.clone(), dir.journal(), boot));

    let complete = until_over(&containers, &bootstrap, &shutdown).await;
    let mut log = Steps::new(plan.debug);
    if complete {
        write_timeline(&sandbox, dir);
    }
    sandbox.stop().await;
    log.done("VM stopped");
    processes.end(Instant::now() + VMM_GONE);
    if let Some(path) = &plan.cgroup {
        vacate_cgroup(path, &dir.journal(), &containers.host_pids());
    }
    let _ = tokio::time::timeout(LAST_WORDS, stderr).await;
    log.done("VMM gone");
    let _ = tokio::time::timeout(LAST_ANSWERS, async {
        let _ = server.shutdown().await;
        connections.all_closed().await;
    })
    .await;
    log.done("last answers written");
    if !complete {
        // Leaves no mount behind in this process's namespace.
        sandbox.share().unmount();
    }
    Ok(complete)
}

fn write_timeline(sandbox: &Sandbox, dir: &StateDir) {
    let written = serde_json::to_vec(&sandbox.timeline().stamps())
        .map_err(|e| e.to_string())
        .and_then(|json| write_atomically(&dir.join(names::TIMELINE), &json).map_err(|e| chain(&e)));
    if let Err(why) = written {
        note(&format!("write the timeline: {why}"));
    }
}

async fn collect(mut stamps: Stamps, sandbox: Arc<Sandbox>) {
    while let Some(stamp) = stamps.recv().await {
        sandbox.timeline().add(stamp);
    }
}

async fn watch_vmm(vmm: Vmm, processes: Processes, containers: Arc<Containers>) {
    let over = vmm.wait_over().await;
    // What it does now, nobody can control.
    processes.kill();
    containers.over(over);
}

async fn bring_up(sandbox: Arc<Sandbox>, vmm: Vmm, processes: Processes, journal: Journal, inputs: Inputs) {
    let booted = async {
        hold(&vmm, &processes, &journal).await?;
        boot(&vmm, inputs, sandbox.timeline()).await
    };
    match booted.await {
        Ok(agent) => sandbox.booted(Guest { clock: Clock::follow(agent.clone()), agent }),
        Err(error) => {
            let failure = Failure::from(error);
            note(&chain(&failure));
            sandbox.fail(failure);
        }
    }
}

/// Takes hold of the jailed process before the VMM knows of a guest, so that it can be ended whatever becomes of it.
async fn hold(vmm: &Vmm, processes: &Processes, journal: &Journal) -> Result<(), BootError> {
    let pid = vmm.started(limits::CONTROL).await?;
    if let Some(process) = processes.adopt(pid)? {
        let entry = Entry::Process { role: Role::Vmm, process };
        journal.append(&entry).map_err(|source| BootError::Journal { source })?;
    }
    Ok(())
}

pub(super) async fn start_server(
    containers: &Arc<Containers>,
    shutdown: &Arc<Notify>,
    connections: &Connections,
    listener: OwnedFd,
) -> Result<Server, ServerError> {
    let failed = ServerError::process("listen on the sandbox's socket");
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true).map_err(&failed)?;
    let listener = UnixListener::from_std(listener).map_err(&failed)?;
    let task = TaskService { containers: containers.clone(), shutdown: shutdown.clone() };
    let sandbox = SandboxService { containers: containers.clone() };
    let mut server = Server::new()
        .add_listener(connections.listener(listener))
        .register_service(containerd_shim_protos::shim_async::create_task(Arc::new(task)))
        .register_service(bulkhead_protocol::sandbox::create_sandbox(Arc::new(sandbox)));
    server.start().await.map_err(|source| ServerError::Serve { source })?;
    Ok(server)
}

/// Waits for the end: false when the command was cut off before the creation was complete.
async fn until_over(containers: &Containers, bootstrap: &Packets, shutdown: &Notify) -> bool {
    // Only the command that creates decides until it is done: a container that ends at once is still created.
    match bootstrap.receive::<Order>().await {
        Ok((Order::Complete, _)) => {}
        Ok((Order::Plan(_), _)) | Err(PacketError::Closed) => return false,
        Err(error) => {
            note(&format!("bootstrap socket: {}", chain(&error)));
            return false;
        }
    }
    tokio::select! {
        () = containers.until_over() => {}
        () = shutdown.notified() => {}
    }
    true
}

/// Children that end are reaped: the VMM, and what it leaves to its subreaper.
async fn reap() {
    let Ok(mut children) = signal(SignalKind::child()) else { return };
    loop {
        while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
        if children.recv().await.is_none() {
            return;
        }
    }
}

/// How long each step of the end took, for `--debug`.
struct Steps {
    shown: bool,
    last: Instant,
}

impl Steps {
    fn new(shown: bool) -> Self {
        Self { shown, last: Instant::now() }
    }

    fn done(&mut self, step: &str) {
        let now = Instant::now();
        if self.shown {
            note(&format!("{step} after {:?}", now - self.last));
        }
        self.last = now;
    }
}
