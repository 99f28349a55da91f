//! The sandbox server: one process per sandbox, detached from the command that started it.
//!
//!   bootstrap socket (standard input) ─plan + descriptors─▶ host: journal, the first container's claim and cgroup, share
//!     ─▶ VMM ─▶ Sandbox ─▶ serve ║ boot
//!     … ─▶ all containers over and nobody attached ─▶ stop the VM ─▶ last answers written ─▶ exit
//!
//! A sandbox in which no container was ever complete leaves nothing: what was begun is undone, and its directory goes. A
//! stopped container costs no process.

mod bootstrap;
mod error;
mod host;

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    binfmt::Handler,
    limits,
    packet::PacketSocket,
    timeline::{Phase, Stamp},
};
use bulkhead_sys::chain;
use rustix::process::{WaitOptions, waitpid};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use ttrpc::asynchronous::Server;

pub(super) use self::bootstrap::Report;
use self::{
    bootstrap::Descriptors,
    error::ServerError,
    host::{Host, limit_files, vacate_cgroup},
};
use super::{connections::Connections, sandbox::SandboxService, task::TaskService};
use crate::{
    container::{Containers, Creation},
    log::note,
    network::Namespace,
    sandbox::{
        Failure, Guest, HostCgroup, Parts, Sandbox, SandboxPlan,
        agent::Agent,
        binfmt,
        boot::{BootError, Inputs, boot},
        cgroup::Place,
        clock::Clock,
        clock_source,
        nics::Nics,
        pressure,
        resize::Machine,
        standstill,
        timeline::Timeline,
        vmm::{Spawned, Stamps, Vmm, processes::Processes},
    },
    store::{Entry, Journal, LockedSandbox, Role, SandboxDir, names, write_json},
    undo,
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
            let report = Report::Failed { message: chain(&error), hint: error.hint().map(Into::into) };
            let _ = socket.send(&report, &[]);
            1
        }
    }
}

fn serve(socket: &PacketSocket) -> Result<(), ServerError> {
    host::shed()?;
    let (plan, fds) = socket.receive::<SandboxPlan>()?;
    let descriptors = Descriptors::agreed(fds, plan.network.is_some())?;
    let dir = SandboxDir::open(&plan.root, &plan.id)?
        .ok_or_else(|| ServerError::NoDirectory { id: plan.id.clone() })?;
    let dir = LockedSandbox::received(
        dir,
        descriptors.lock.try_clone().map_err(ServerError::process("hold the lock"))?,
    );
    host::detach(&dir)?;
    let served = serve_in(&plan, &dir, descriptors, socket);
    if !matches!(served, Ok(true))
        && let Err(error) = undo::sandbox(&dir)
    {
        note(&format!("remove the sandbox: {}", chain(&error)));
    }
    served.map(drop)
}

/// False when no container was ever complete in it.
fn serve_in(
    plan: &SandboxPlan,
    dir: &SandboxDir,
    descriptors: Descriptors,
    socket: &PacketSocket,
) -> Result<bool, ServerError> {
    let request =
        File::from(descriptors.request.try_clone().map_err(ServerError::process("read the request"))?);
    let host = Host::set_up(plan, dir, &request)?;
    let failed = ServerError::process("start the server's loop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (containers, ended) = runtime.block_on(run(plan, dir, host, descriptors, socket))?;
    drop(runtime);
    containers.undo_creations();
    Ok(ended)
}

/// A sandbox whose VMM waits for its boot request.
struct Assembled {
    sandbox: Arc<Sandbox>,
    vmm: Vmm,
    processes: Processes,
    stamps: Stamps,
    stderr: JoinHandle<()>,
    boot: Inputs,
    /// Foreign binaries that the guest is to run.
    handlers: Vec<Handler>,
    listener: OwnedFd,
    creation: Creation,
}

impl Assembled {
    fn new(
        plan: &SandboxPlan,
        dir: &SandboxDir,
        host: Host,
        descriptors: Descriptors,
    ) -> Result<Self, ServerError> {
        let timeline = Timeline::default();
        timeline.add(Stamp { phase: Phase::Command, monotonic_ns: plan.command_ns });
        timeline.mark(Phase::ServerUp);
        let path = plan.cgroup.as_ref().map(|place| place.path.as_path());
        let Spawned { vmm, processes, stamps, stderr } = Vmm::spawn(&plan.vmm, path)?;
        let Host { share, bounds, creation } = host;
        limit_files()?;
        let handlers = binfmt::share(&share, &plan.foreign)?;
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
            exclusive_rootfs: plan.exclusive_rootfs,
            stable_tsc: clock_source::is_tsc(&clock_source::current(Path::new("/"))),
        };
        let limits = plan.limits.clone();
        let cgroup = plan.cgroup.clone().map(|Place { path, scope }| HostCgroup { path, scope, limits });
        let sandbox = Sandbox::new(Parts {
            host_container: Some(plan.host_container.clone()),
            cgroup,
            machine: Machine::new(vmm.clone(), plan.sizes, bounds, plan.memory),
            processes: processes.clone(),
            nics: Nics::new(vmm.clone(), journal, plan.vhost_net, given),
            vsock: dir.door(names::VSOCK_SOCKET)?,
            port_forward: plan.port_forward,
            share,
            timeline,
        });
        let listener = descriptors.listener;
        Ok(Self { sandbox, vmm, processes, stamps, stderr, boot, handlers, listener, creation })
    }
}

/// Runs the sandbox to its end. What is left of its containers; true when one of them was ever complete.
async fn run(
    plan: &SandboxPlan,
    dir: &SandboxDir,
    host: Host,
    descriptors: Descriptors,
    bootstrap: &PacketSocket,
) -> Result<(Arc<Containers>, bool), ServerError> {
    let assembled = Assembled::new(plan, dir, host, descriptors)?;
    let Assembled { sandbox, vmm, processes, stamps, stderr, boot, handlers, listener, creation } = assembled;
    let containers = Containers::new(sandbox.clone(), plan.root.clone());
    containers.adopt(creation)?;
    tokio::spawn(reap());
    tokio::spawn(collect(stamps, sandbox.clone()));
    tokio::spawn(watch_vmm(vmm.clone(), processes.clone(), containers.clone()));
    tokio::spawn(standstill::watch(sandbox.clone(), vmm.clone()));
    let shutdown = Arc::new(Notify::new());
    let connections = Connections::new();
    let mut server = start_server(&containers, &shutdown, &connections, listener).await?;
    // A command that is gone does not hear it; then the creation is undone.
    let _ = bootstrap.send(&Report::Serving, &[]);
    let booting = bring_up(sandbox.clone(), vmm.clone(), processes.clone(), dir.journal(), boot);
    let booted = sandbox.clone();
    tokio::spawn(async move {
        if let Some(agent) = booting.await {
            welcome(booted, agent, &handlers).await;
        }
    });

    tokio::select! {
        () = containers.until_over() => {}
        () = shutdown.notified() => {}
    }
    let mut log = Steps::new(plan.debug);
    if containers.had_one() {
        write_timeline(&sandbox, dir);
    }
    sandbox.stop().await;
    log.done("VM stopped");
    processes.end(Instant::now() + VMM_GONE);
    vacate_cgroup(plan, &containers.host_pids());
    let _ = tokio::time::timeout(LAST_WORDS, stderr).await;
    log.done("VMM gone");
    let _ = tokio::time::timeout(LAST_ANSWERS, async {
        let _ = server.shutdown().await;
        connections.all_closed().await;
    })
    .await;
    log.done("last answers written");
    let had_one = containers.had_one();
    Ok((containers, had_one))
}

fn write_timeline(sandbox: &Sandbox, dir: &SandboxDir) {
    if let Err(error) = write_json(&dir.join(names::TIMELINE), &sandbox.timeline().stamps()) {
        note(&format!("write the timeline: {}", chain(&error)));
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

/// The agent of a guest that is up; else the sandbox has failed.
async fn bring_up(
    sandbox: Arc<Sandbox>,
    vmm: Vmm,
    processes: Processes,
    journal: Journal,
    inputs: Inputs,
) -> Option<Agent> {
    let booted = async {
        hold(&vmm, &processes, &journal).await?;
        boot(&vmm, inputs, sandbox.timeline()).await
    };
    match booted.await {
        Ok(agent) => Some(agent),
        Err(error) => {
            let failure = Failure::from(error);
            note(&chain(&failure));
            sandbox.fail(failure);
            None
        }
    }
}

/// Makes the guest ready for containers. It gets its vCPUs while the first one is made, and from then on the memory that it needs.
async fn welcome(sandbox: Arc<Sandbox>, agent: Agent, handlers: &[Handler]) {
    if !handlers.is_empty()
        && let Err(error) = agent.register_handlers(handlers).await
    {
        sandbox.end(&format!("have the guest run foreign binaries: {}", chain(&error))).await;
        return;
    }
    let mut machine = sandbox.hold_machine().await;
    sandbox.booted(Guest { clock: Clock::follow(agent.clone()), agent: agent.clone() });
    if let Err(error) = machine.start_vcpus(&agent).await {
        note(&format!("the guest goes on with fewer vCPUs: {}", chain(&error)));
    }
    drop(machine);
    pressure::follow(sandbox, agent).await;
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
