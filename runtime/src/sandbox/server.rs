//! The sandbox server: one process per pod, detached from the command that started it.
//!
//!   bootstrap socket (standard input) ─Plan + fds─▶ journal, cgroup, share ─▶ serve + boot ─▶ …
//!     … ─▶ all containers over and all proxies gone ─▶ stop the VM ─▶ last answers written ─▶ exit
//!
//! Until the command says that its creation is complete, its end is the server's end, and the state directory goes as
//! well: a creation that is cut off leaves nothing. A stopped container costs no process.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    limits,
    packet::{PacketError, PacketSocket},
    timeline::{Phase, Stamp},
};
use nix::sys::signal::{SigHandler, Signal};
use rustix::{
    fs::{Mode, OFlags},
    process::{Resource, Rlimit, WaitOptions, setrlimit, waitpid},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use ttrpc::asynchronous::Server;

use super::{
    boot::{BootError, Inputs, boot},
    cgroup::{self, CgroupError, Claim, bounds::Bounds, scope::Holder},
    clock::Clock,
    clock_source,
    connections::Connections,
    nics::Nics,
    oom_score,
    packets::Packets,
    plan::Plan,
    pod::{Boot, Group, Pod},
    resize::Machine,
    services::{SandboxService, TaskService},
    share::Share,
    vmm::{Spawned, Vmm, processes::Processes},
};
use crate::{
    error::chain,
    log::{Bounded, note, note_in},
    network::Namespace,
    store::{Entry, Journal, Role, StateDir, names, write_atomically},
    systemd,
    undo::{self, vacate},
};

/// The word after which `main` below is meant.
pub const COMMAND: &str = "sandbox-server";
/// For the last answers to be taken by their clients.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// For what a VMM that is gone has said to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of any file that the server writes. What it writes is bounded in other ways; this is for what they overlook.
const FILE_MAX: u64 = 16 << 20;
/// For the VMM to be gone after SIGKILL.
const VMM_GONE: Duration = Duration::from_secs(5);

/// Command to server, after the plan.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// Comes first, with the descriptors `Descriptors` names.
    Plan(Box<Plan>),
    /// The container is made and recorded: the server lives on without the command.
    Complete,
}

/// Server to command: it cannot go on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// In this order beside the plan.
pub(super) struct Descriptors {
    pub(super) listener: OwnedFd,
    pub(super) kernel: OwnedFd,
    pub(super) initramfs: OwnedFd,
    /// With `Plan::network`.
    pub(super) network: Option<OwnedFd>,
}

impl Descriptors {
    fn agreed(mut fds: Vec<OwnedFd>, network: bool) -> Result<Self, BoxError> {
        let network = if network { fds.pop() } else { None };
        let fds: [OwnedFd; 3] = fds.try_into().map_err(|_| "the plan has other descriptors than agreed")?;
        let [listener, kernel, initramfs] = fds;
        Ok(Self { listener, kernel, initramfs, network })
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The whole process: its exit code.
pub fn main() -> u8 {
    // For ps and top: the kernel took the name from /proc/self/exe.
    let _ = rustix::thread::set_name(c"bulkhead-server");
    let socket = match take_bootstrap() {
        Ok(socket) => socket,
        Err(error) => {
            note(&format!("sandbox server: {error}"));
            return 1;
        }
    };
    match serve(&socket) {
        Ok(()) => 0,
        Err(error) => {
            note(&format!("sandbox server: {}", chain(error.as_ref())));
            let failed = Failed { message: chain(error.as_ref()), hint: None };
            let _ = socket.send(&failed, &[]);
            1
        }
    }
}

/// The socket comes as standard input, which then becomes /dev/null.
fn take_bootstrap() -> std::io::Result<PacketSocket> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket.into())
}

fn serve(socket: &PacketSocket) -> Result<(), BoxError> {
    crate::shed::caller()?;
    let (order, fds) = socket.receive::<Order>()?;
    let Order::Plan(plan) = order else { return Err("the first order is not a plan".into()) };
    let descriptors = Descriptors::agreed(fds, plan.network.is_some())?;
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let dir = StateDir::open(&plan.root, &plan.id)?;
    note_in(Bounded::new(open_log(&dir.join(names::SERVER_LOG))?)?);
    let journal = dir.journal();
    journal.append_self(Role::Server)?;
    if let Some(score) = plan.oom_score_adj {
        oom_score::set_own(score)?;
    }
    let mut home = None;
    if let Some(path) = &plan.cgroup {
        let entrance = Entrance::make(path, &plan, &journal)?;
        journal.append(&Entry::Owned { path: path.clone() })?;
        // Nobody goes back: a server that fails here takes the cgroup with it.
        let _ = cgroup::limits::set(path, &plan.limits)?;
        let bounds = Bounds::begin(path, plan.sizes, plan.memory)?;
        if let Some(scope) = &plan.scope {
            systemd::follow(scope, path)?;
        }
        home = Some((entrance, bounds));
    }
    let share = Share::enter(&dir.join(names::SHARE))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bootstrap = rustix::io::fcntl_dupfd_cloexec(socket, 3)?;
    let complete = runtime.block_on(run(&plan, &dir, share, home, descriptors, bootstrap.into()))?;
    if !complete {
        drop(runtime);
        discard(&dir)?;
    }
    Ok(())
}

/// What keeps the cgroup until the VMM is inside.
#[derive(Debug)]
enum Entrance {
    /// Free of others.
    Claimed { _claim: Claim },
    /// There at all.
    Held { _holder: Holder },
}

impl Entrance {
    fn make(path: &Path, plan: &Plan, journal: &Journal) -> Result<Self, CgroupError> {
        let Some(scope) = &plan.scope else {
            return Ok(Self::Claimed { _claim: cgroup::make(path, journal)? });
        };
        let holder = Holder::start()?;
        cgroup::scope::make(path, scope, &plan.id, holder.pid(), journal)?;
        Ok(Self::Held { _holder: holder })
    }
}

/// The command that started the creation was cut off: what it left is removed.
fn discard(dir: &StateDir) -> Result<(), BoxError> {
    // A cgroup with a process in it cannot be removed, and this is one.
    let _ = cgroup::enter(cgroup::ROOT.as_ref(), std::process::id());
    let dir = StateDir::open(dir.path().parent().unwrap_or(dir.path()), dir.id())?;
    // If the lock is held, somebody else is at it, and kills this process in a moment.
    if let Some(locked) = dir.try_lock()? {
        undo::everything(&locked)?;
    }
    Ok(())
}

/// Runs the sandbox to its end; false when the creation was cut off.
async fn run(
    plan: &Plan,
    dir: &StateDir,
    share: Share,
    home: Option<(Entrance, Bounds)>,
    descriptors: Descriptors,
    bootstrap: PacketSocket,
) -> Result<bool, BoxError> {
    let share_fd = share.open()?;
    let group = plan.cgroup.clone().map(|path| Group {
        path,
        scope: plan.scope.clone(),
        limits: plan.limits.clone(),
    });
    let pod = Pod::new(dir.id().clone(), dir.path().to_owned(), Some(share), group);
    pod.timeline.add(Stamp { phase: Phase::Command, monotonic_ns: plan.command_ns });
    pod.timeline.mark(Phase::ServerUp);
    let Spawned { vmm, processes, mut stamps, stderr } = Vmm::spawn(&plan.vmm, plan.cgroup.as_deref())?;
    // It is in the cgroup, which nobody else takes from now on.
    let bounds = home.map(|(_entrance, bounds)| bounds);
    limit_files()?;
    pod.timeline.mark(Phase::VmmSpawned);
    // Nobody else sets it.
    let _ = pod.machine.set(Machine::new(vmm.clone(), plan.sizes, bounds));
    let journal = dir.journal();
    journal.append(&Entry::Process { role: Role::Vmm, process: processes.outer() })?;
    let given = plan.network.clone().zip(descriptors.network.map(Namespace::received));
    pod.connect(Nics::new(vmm.clone(), journal.clone(), plan.vhost_net, given));
    // Nobody else sets them.
    let _ = pod.vmm_processes.set(processes.clone());

    tokio::spawn(reap());
    tokio::spawn({
        let pod = pod.clone();
        async move {
            while let Some(stamp) = stamps.recv().await {
                pod.timeline.add(stamp);
            }
        }
    });
    tokio::spawn({
        let (pod, vmm, processes) = (pod.clone(), vmm.clone(), processes.clone());
        async move {
            let over = vmm.wait_over().await;
            // What it does now, nobody can control.
            processes.kill();
            pod.over(over);
        }
    });

    let shutdown = Arc::new(Notify::new());
    let connections = Connections::new();
    let mut server = start_server(&pod, &shutdown, &connections, descriptors.listener).await?;
    let inputs = Inputs {
        kernel: descriptors.kernel,
        initramfs: descriptors.initramfs,
        share: share_fd,
        vsock_listener: dir.bind(names::VSOCK_SOCKET)?.into(),
        sizes: plan.sizes,
        debug_console: plan.debug,
        huge_pages: plan.huge_pages,
        strip_setuid: plan.strip_setuid,
        stable_tsc: clock_source::is_tsc(&clock_source::current(Path::new("/"))),
    };
    let bootstrap = Arc::new(Packets::new(bootstrap)?);
    tokio::spawn({
        let (pod, vmm, bootstrap) = (pod.clone(), vmm.clone(), bootstrap.clone());
        let processes = processes.clone();
        async move {
            let booted = async {
                hold(&vmm, &processes, &journal).await?;
                boot(&vmm, inputs, &pod.timeline).await
            };
            match booted.await {
                Ok(agent) => {
                    // Nobody else sets it.
                    let _ = pod.clock.set(Clock::follow(agent.clone()));
                    pod.boot.send_if_modified(|boot| {
                        // The VM may have ended in this very moment.
                        let pending = matches!(boot, Boot::Pending);
                        if pending {
                            *boot = Boot::Up(agent);
                        }
                        pending
                    });
                }
                Err(error) => {
                    let message = format!("boot sandbox: {}", chain(&error));
                    note(&message);
                    let failed = Failed { message: message.clone(), hint: error.hint().map(Into::into) };
                    let _ = bootstrap.send(&failed, &[]).await;
                    pod.fail(&message);
                }
            }
        }
    });

    let complete = until_over(&pod, &bootstrap, &shutdown).await;
    let mut log = Steps::new(plan.debug);
    let timeline = serde_json::to_vec(&pod.timeline.stamps())?;
    if complete && let Err(error) = write_atomically(&dir.join(names::TIMELINE), &timeline) {
        note(&format!("write the timeline: {}", chain(&error)));
    }
    pod.stop(&vmm).await;
    log.done("VM stopped");
    drop(vmm);
    processes.end(Instant::now() + VMM_GONE);
    if let Some(path) = &plan.cgroup {
        leave_alone(path, &dir.journal(), &pod.proxy_pids());
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
        pod.unmount_share();
    }
    Ok(complete)
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

/// Only for this process, so to be called when the VMM runs: that writes the files of the guest's volumes.
fn limit_files() -> Result<(), BoxError> {
    // SAFETY: SIGXFSZ is ignored; no handler runs. A write beyond the limit fails then, and does not end the server.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(setrlimit(Resource::Fsize, Rlimit { current: Some(FILE_MAX), maximum: Some(FILE_MAX) })?)
}

fn open_log(path: &PathBuf) -> Result<File, BoxError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let log = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map_err(|e| format!("open {}: {e}", path.display()))?;
    Ok(log.into())
}

pub(super) async fn start_server(
    pod: &Arc<Pod>,
    shutdown: &Arc<Notify>,
    connections: &Connections,
    listener: OwnedFd,
) -> Result<Server, BoxError> {
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let task = TaskService { pod: pod.clone(), shutdown: shutdown.clone() };
    let sandbox = SandboxService { pod: pod.clone() };
    let mut server = Server::new()
        .add_listener(connections.listener(UnixListener::from_std(listener)?))
        .register_service(containerd_shim_protos::shim_async::create_task(Arc::new(task)))
        .register_service(bulkhead_protocol::sandbox::create_sandbox(Arc::new(sandbox)));
    server.start().await?;
    Ok(server)
}

/// Waits for the end: false when the command was cut off before the creation was complete.
async fn until_over(pod: &Pod, bootstrap: &Packets, shutdown: &Notify) -> bool {
    let completed = async {
        match bootstrap.receive::<Order>().await {
            Ok((Order::Complete, _)) => true,
            Ok((Order::Plan(_), _)) | Err(PacketError::Closed) => false,
            Err(error) => {
                note(&format!("bootstrap socket: {error}"));
                false
            }
        }
    };
    // Only the command that creates decides until it is done: a container that ends at once is still created.
    if !completed.await {
        return false;
    }
    let over = async {
        loop {
            let failed = matches!(*pod.boot.borrow(), Boot::Failed(_));
            let ended = {
                let table = pod.table();
                table.is_over() || (failed && table.is_empty())
            };
            if ended && !pod.has_proxies() {
                return;
            }
            pod.changed.notified().await;
        }
    };
    tokio::select! {
        () = over => {}
        () = shutdown.notified() => {}
    }
    true
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

/// Nothing that the VMM has started is left in the cgroup: whoever comes into it from now on is not killed by `delete`.
fn leave_alone(path: &Path, journal: &Journal, proxies: &[u32]) {
    let ours = [&[std::process::id()], proxies].concat();
    match vacate(path, &ours) {
        Err(error) => note(&format!("empty cgroup {}: {}", path.display(), chain(&error))),
        Ok(()) => {
            if let Err(error) = journal.append(&Entry::Vacated { path: path.to_owned() }) {
                note(&chain(&error));
            }
        }
    }
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
