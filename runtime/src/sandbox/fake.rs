//! For tests: a VMM that speaks packets and an agent that speaks ttrpc, both in this process and without a guest.

use std::{
    collections::BTreeMap,
    io::Write as _,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bulkhead_protocol::{
    agent::{
        AdjustTimeRequest, Agent as AgentService, ContainerStatsRequest, ContainerStatsResponse,
        CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, DeleteProcessRequest, Empty,
        ExecRequest, ExecResponse, FileEvent, GetTimeResponse, ListProcessesRequest, ListProcessesResponse,
        PauseContainerRequest, ProcessInfo, ResumeContainerRequest, SetOnlineCpusRequest,
        SignalProcessRequest, SlotRequest, StartContainerRequest, StartContainerResponse,
        TellWatchersRequest, UpdateContainerRequest, WaitOomRequest, WaitOomResponse, WaitPressureRequest,
        WaitPressureResponse, WaitProcessRequest, WaitProcessResponse, WaitWatchesRequest,
        WaitWatchesResponse, WatchedFile, create_agent,
    },
    container::{
        Confinement, ContainerSpec, NamespaceKind, NamespacePlace, ProcessSpec, Resources, Rootfs,
        Scheduling, TimeOffsets, User,
    },
    greeting::Greeting,
    packet::{PacketError, PacketSocket},
    vmm::{Device, Event, Failure, FailureKind, GuestExit, HugePages, Message, Reply, Request},
};
use futures::{StreamExt as _, stream};
use tokio::{
    net::UnixStream,
    sync::{Notify, watch},
};
use ttrpc::{
    Code,
    asynchronous::{Server, TtrpcContext, transport::Listener},
};

use super::{agent::Agent, boot::Inputs, packets::Packets, sizing::Sizes, vmm::Vmm};

fn status(code: Code, message: impl ToString) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, message))
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn process(args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![],
        cwd: "/".into(),
        user: User { uid: 0, gid: 0, additional_gids: vec![], umask: None },
        terminal: false,
        console_size: None,
        plain_line_feeds: false,
        capabilities: None,
        rlimits: vec![],
        inherited_rlimits: vec![],
        no_new_privileges: false,
        oom_score_adj: None,
        scheduling: Scheduling::default(),
    }
}

pub(crate) fn spec(args: &[&str]) -> ContainerSpec {
    let source = "web/rootfs".to_owned().try_into().unwrap();
    let namespace = |kind| bulkhead_protocol::container::Namespace { kind, place: NamespacePlace::New };
    ContainerSpec {
        pauses: false,
        rootfs: Rootfs { source, readonly: false, propagation: None },
        process: process(args),
        namespaces: vec![namespace(NamespaceKind::Pid), namespace(NamespaceKind::Mount)],
        uid_mappings: vec![],
        gid_mappings: vec![],
        time_offsets: TimeOffsets::default(),
        hostname: None,
        domainname: None,
        mounts: vec![],
        devices: vec![],
        masked_paths: vec![],
        readonly_paths: vec![],
        sysctl: BTreeMap::new(),
        guest_sysctl: BTreeMap::new(),
        resources: Resources::default(),
        confinement: Confinement::default(),
        start_hooks: None,
        join: None,
    }
}

pub(crate) fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

pub(crate) const SIZES: Sizes =
    Sizes { memory_mib: 64, max_memory_mib: 256, vcpus: 1, max_vcpus: 2, grows_to_mib: 256, files: 64 * 512 };

pub(crate) fn inputs() -> Inputs {
    Inputs {
        kernel: null(),
        initramfs: null(),
        share: null(),
        vsock_listener: null(),
        sizes: SIZES,
        debug_console: false,
        huge_pages: HugePages::Always,
        strip_setuid: false,
        exclusive_rootfs: true,
        stable_tsc: true,
    }
}

/// What a fake VMM does once it was told to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guest {
    /// The agent comes up.
    Works,
    /// The agent's stream carries this instead of a greeting.
    Says(Vec<u8>),
    /// Nothing ever comes.
    Silent,
    /// The kernel panics.
    Panics,
    /// The VMM dies without a word.
    VmmDies,
    /// The VMM cannot load it, and lets go of the agent's socket first.
    CannotLoad,
}

pub(crate) const CONSOLE: &str = "Kernel panic - not syncing: VFS";

/// Starts a fake VMM; `agent` is served once the guest is up.
pub(crate) fn vmm(guest: Guest, agent: FakeAgent) -> (Vmm, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = PacketSocket::pair().unwrap();
    let (vmm, _) = Vmm::over(ours).unwrap();
    (vmm, tokio::spawn(serve_vmm(Packets::new(theirs).unwrap(), guest, agent)))
}

async fn serve_vmm(packets: Packets, guest: Guest, agent: FakeAgent) {
    let mut held = Vec::new();
    send(&packets, Message::Event(Event::Started { pid: std::process::id() })).await;
    loop {
        let (request, mut fds) = match packets.receive::<Request>().await {
            Ok(packet) => packet,
            Err(PacketError::Closed) => return,
            Err(error) => panic!("{error}"),
        };
        match request {
            Request::Boot(machine) => {
                let port = machine.devices.iter().find_map(|(_, device)| match device {
                    Device::Vsock { ports, .. } => Some(ports[0].socket),
                    _ => None,
                });
                let socket = fds.remove(port.unwrap().0.into());
                match guest {
                    Guest::VmmDies => return,
                    Guest::CannotLoad => {
                        drop(socket);
                        // The other side sees the end of its stream before the reply.
                        tokio::task::yield_now().await;
                        let message = "load the kernel: not an ELF file".to_owned();
                        let kind = FailureKind::Image;
                        send(&packets, Message::Reply(Err(Failure { kind, message }))).await;
                        continue;
                    }
                    _ => {}
                }
                send(&packets, Message::Reply(Ok(Reply::Booted))).await;
                let mut stream = std::os::unix::net::UnixStream::from(socket);
                match &guest {
                    Guest::Works => {
                        stream.write_all(Greeting::new("6.12").to_string().as_bytes()).unwrap();
                        agent.clone().serve(stream);
                    }
                    Guest::Says(bytes) => {
                        stream.write_all(bytes).unwrap();
                        held.push(stream);
                    }
                    Guest::Silent => held.push(stream),
                    Guest::Panics => {
                        let console_tail = CONSOLE.to_owned();
                        let reason = GuestExit::Panic;
                        send(&packets, Message::Event(Event::Exited { reason, console_tail })).await;
                        return;
                    }
                    Guest::VmmDies | Guest::CannotLoad => return,
                }
            }
            Request::Stop => {
                send(&packets, Message::Reply(Ok(Reply::Done))).await;
                let console_tail = CONSOLE.to_owned();
                let reason = GuestExit::Stopped;
                send(&packets, Message::Event(Event::Exited { reason, console_tail })).await;
                return;
            }
            Request::Plug { slot, .. } => {
                agent.machine().asked(format!("plug {}", slot.0));
                send(&packets, Message::Reply(Ok(Reply::Done))).await;
            }
            Request::Unplug { slot } => {
                agent.machine().asked(format!("unplug {}", slot.0));
                send(&packets, Message::Reply(Ok(Reply::Done))).await;
            }
            Request::ResizeMemory { mib } => {
                agent.machine().resize(mib);
                agent.machine().asked(format!("memory {mib}"));
                send(&packets, Message::Reply(Ok(Reply::Done))).await;
            }
            Request::Nudge => {
                agent.machine().asked("nudge".to_owned());
                send(&packets, Message::Reply(Ok(Reply::Done))).await;
            }
            Request::Revoke { directory } => {
                agent.machine().asked(format!("revoke {directory}"));
                send(&packets, Message::Reply(Ok(Reply::Done))).await;
            }
            Request::Metrics => {
                let plugged = agent.machine().plugged_mib();
                let refused = agent.machine().refused;
                let metrics = vec![
                    ("mem.plugged_bytes".to_owned(), u64::from(plugged) << 20),
                    ("mem.refused".to_owned(), refused),
                ];
                send(&packets, Message::Reply(Ok(Reply::Metrics(metrics)))).await;
            }
        }
    }
}

async fn send(packets: &Packets, message: Message) {
    packets.send(&message, &[]).await.unwrap();
}

/// Processes that live until they get a signal; `args` that start with `exit N` end at once when started.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeAgent {
    processes: Arc<Mutex<BTreeMap<String, FakeProcess>>>,
    machine: Arc<Mutex<FakeMachine>>,
    /// It lets go of its streams, and the VM goes on.
    pub(crate) hang_up: Arc<Notify>,
    /// The containers have not enough memory.
    pub(crate) pressed: Arc<Notify>,
    /// Counts those who wait for it: a new one ends the one before.
    waits: Arc<watch::Sender<u64>>,
}

/// What VMM and guest would do to the machine.
#[derive(Debug, Default)]
pub(crate) struct FakeMachine {
    pub(crate) asked: Vec<String>,
    /// Beyond what it booted with.
    mib: u32,
    pub(crate) plugs_at_most: Option<u32>,
    /// The host has no more, and the device has said so this often.
    pub(crate) refuses_memory: bool,
    refused: u64,
    pub(crate) refuses_bind: bool,
    pub(crate) refuses_cpus: bool,
    /// The guest's clock lacks so many nanoseconds.
    pub(crate) clock_behind: i128,
    pub(crate) refuses_time: bool,
    /// Signals are answered, and nothing comes of them.
    pub(crate) spares_processes: bool,
    /// All processes have ended, and nobody was told.
    pub(crate) ends_in_silence: bool,
    /// Signals and deletions are not answered.
    pub(crate) silent: bool,
    /// What the guest watches of its volumes, and what its watchers were told.
    pub(crate) watches: Vec<WatchedFile>,
    pub(crate) told: Vec<FileEvent>,
}

impl FakeMachine {
    fn asked(&mut self, what: String) {
        self.asked.push(what);
    }

    fn resize(&mut self, mib: u32) {
        if self.refuses_memory {
            self.refused += 1;
        } else {
            // In whole blocks, as the device.
            self.mib = (mib - SIZES.memory_mib).next_multiple_of(2);
        }
    }

    fn plugged_mib(&self) -> u32 {
        self.plugs_at_most.map_or(self.mib, |most| self.mib.min(most))
    }
}

#[derive(Debug)]
struct FakeProcess {
    args: Vec<String>,
    exit: watch::Sender<Option<(u32, u32)>>,
}

impl FakeAgent {
    fn serve(self, stream: std::os::unix::net::UnixStream) {
        stream.set_nonblocking(true).unwrap();
        let stream = UnixStream::from_std(stream).unwrap();
        tokio::spawn(async move {
            let accepted = stream::iter([Ok(stream)]).chain(stream::pending());
            let hang_up = self.hang_up.clone();
            let mut server = Server::new()
                .add_listener(Listener::new(accepted))
                .register_service(create_agent(Arc::new(self)));
            server.start().await.unwrap();
            hang_up.notified().await;
            server.disconnect().await;
        });
    }

    /// Connected without a boot.
    pub(crate) fn connect(&self) -> Agent {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        self.clone().serve(theirs);
        ours.set_nonblocking(true).unwrap();
        Agent::on(UnixStream::from_std(ours).unwrap())
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, FakeMachine> {
        self.machine.lock().unwrap()
    }

    /// Does not return when there is to be none.
    async fn silence(&self) {
        if self.machine().silent {
            std::future::pending::<()>().await;
        }
    }

    fn add(&self, name: String, args: &[String]) {
        let exit = watch::Sender::new(None);
        self.processes.lock().unwrap().insert(name, FakeProcess { args: args.to_vec(), exit });
    }

    fn started(&self, name: &str) -> ttrpc::Result<()> {
        let processes = self.processes.lock().unwrap();
        let process = processes.get(name).ok_or_else(|| status(Code::NOT_FOUND, "no such process"))?;
        match process.args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["exit", code] => drop(process.exit.send_replace(Some((code.parse().unwrap(), 0)))),
            ["nope"] => return Err(status(Code::ABORTED, "executable file not found in $PATH")),
            _ => {}
        }
        Ok(())
    }
}

fn name(container: &str, exec: &str) -> String {
    format!("{container}/{exec}")
}

#[async_trait]
impl AgentService for FakeAgent {
    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        let spec: ContainerSpec = serde_json::from_slice(&request.spec).unwrap();
        if spec.process.args == ["unmakeable"] {
            return Err(status(Code::ABORTED, "mount /proc: no such file or directory"));
        }
        self.add(name(&request.container_id, ""), &spec.process.args);
        Ok(CreateContainerResponse { pid: 7, ..Default::default() })
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<StartContainerResponse> {
        self.started(&name(&request.container_id, ""))?;
        Ok(StartContainerResponse { pid: 7, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> ttrpc::Result<ExecResponse> {
        let process: ProcessSpec = serde_json::from_slice(&request.process).unwrap();
        let name = name(&request.container_id, &request.exec_id);
        self.add(name.clone(), &process.args);
        self.started(&name)?;
        Ok(ExecResponse { pid: 8, ..Default::default() })
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<Empty> {
        self.silence().await;
        let processes = self.processes.lock().unwrap();
        let process = processes.get(&name(&request.container_id, &request.exec_id));
        let process = process.ok_or_else(|| status(Code::NOT_FOUND, "no such process"))?;
        if request.signal == 0 {
            // An exit is known to who asks before it is told to who waits.
            let ended = self.machine().ends_in_silence || process.exit.borrow().is_some();
            return if ended { Err(status(Code::NOT_FOUND, "no such process")) } else { Ok(Empty::new()) };
        }
        if !self.machine().spares_processes {
            process.exit.send_replace(Some((0, request.signal)));
        }
        Ok(Empty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let watch = {
            let processes = self.processes.lock().unwrap();
            let process = processes.get(&name(&request.container_id, &request.exec_id));
            process.ok_or_else(|| status(Code::NOT_FOUND, "no such process"))?.exit.subscribe()
        };
        let exit = watch.clone().wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        let (code, signal) = exit.ok_or_else(|| status(Code::NOT_FOUND, "deleted"))?;
        Ok(WaitProcessResponse { code, signal, stdout_bytes: 5, ..Default::default() })
    }

    async fn bind_slot(&self, _: &TtrpcContext, request: SlotRequest) -> ttrpc::Result<Empty> {
        let mut machine = self.machine();
        machine.asked(format!("bind {}", request.slot));
        if machine.refuses_bind { Err(status(Code::INTERNAL, "no driver")) } else { Ok(Empty::new()) }
    }

    async fn unbind_slot(&self, _: &TtrpcContext, request: SlotRequest) -> ttrpc::Result<Empty> {
        self.machine().asked(format!("unbind {}", request.slot));
        Ok(Empty::new())
    }

    async fn set_online_cpus(&self, _: &TtrpcContext, request: SetOnlineCpusRequest) -> ttrpc::Result<Empty> {
        let mut machine = self.machine();
        machine.asked(format!("cpus {}", request.count));
        if machine.refuses_cpus { Err(status(Code::INTERNAL, "busy")) } else { Ok(Empty::new()) }
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        _: ListProcessesRequest,
    ) -> ttrpc::Result<ListProcessesResponse> {
        let processes = vec![ProcessInfo { pid: 7, command: "sleep".into(), ..Default::default() }];
        Ok(ListProcessesResponse { processes, ..Default::default() })
    }

    async fn pause_container(&self, _: &TtrpcContext, _: PauseContainerRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }

    async fn resume_container(&self, _: &TtrpcContext, _: ResumeContainerRequest) -> ttrpc::Result<Empty> {
        self.machine().asked("resume".to_owned());
        Ok(Empty::new())
    }

    async fn get_time(&self, _: &TtrpcContext, _: Empty) -> ttrpc::Result<GetTimeResponse> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let now = i128::try_from(now).unwrap() - self.machine().clock_behind;
        let seconds = i64::try_from(now.div_euclid(1_000_000_000)).unwrap();
        let nanoseconds = u32::try_from(now.rem_euclid(1_000_000_000)).unwrap();
        Ok(GetTimeResponse { seconds, nanoseconds, ..Default::default() })
    }

    async fn adjust_time(&self, _: &TtrpcContext, request: AdjustTimeRequest) -> ttrpc::Result<Empty> {
        let mut machine = self.machine();
        machine.asked("adjust".to_owned());
        if machine.refuses_time {
            return Err(status(Code::INTERNAL, "step the clock: operation not permitted"));
        }
        machine.clock_behind -= i128::from(request.nanoseconds);
        Ok(Empty::new())
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        request: UpdateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let resources: Resources = serde_json::from_slice(&request.resources).unwrap();
        if resources.memory_max.is_some() {
            return Err(status(Code::ABORTED, "set limit memory.max to 1: device or resource busy"));
        }
        Ok(Empty::new())
    }

    async fn container_stats(
        &self,
        _: &TtrpcContext,
        _: ContainerStatsRequest,
    ) -> ttrpc::Result<ContainerStatsResponse> {
        Ok(ContainerStatsResponse { memory_current: 4096, pids_current: 1, ..Default::default() })
    }

    async fn wait_oom(&self, _: &TtrpcContext, request: WaitOomRequest) -> ttrpc::Result<WaitOomResponse> {
        Ok(WaitOomResponse { kills: request.seen + 1, ..Default::default() })
    }

    async fn wait_pressure(
        &self,
        _: &TtrpcContext,
        request: WaitPressureRequest,
    ) -> ttrpc::Result<WaitPressureResponse> {
        self.machine().asked(if request.more { "hold" } else { "let go" }.to_owned());
        if !request.more {
            std::future::pending::<()>().await;
        }
        self.waits.send_modify(|waits| *waits += 1);
        let mut waits = self.waits.subscribe();
        let pressed = tokio::select! {
            biased;
            _ = waits.changed() => false,
            () = self.pressed.notified() => true,
        };
        Ok(WaitPressureResponse { pressed, ..Default::default() })
    }

    /// Answers who has not seen this number of watches, and nobody else.
    async fn wait_watches(
        &self,
        _: &TtrpcContext,
        request: WaitWatchesRequest,
    ) -> ttrpc::Result<WaitWatchesResponse> {
        let watches = if request.look { self.machine().watches.clone() } else { vec![] };
        let generation = watches.len() as u64 + 1;
        if request.seen == generation {
            std::future::pending::<()>().await;
        }
        Ok(WaitWatchesResponse { generation, watches, ..Default::default() })
    }

    async fn tell_watchers(&self, _: &TtrpcContext, request: TellWatchersRequest) -> ttrpc::Result<Empty> {
        self.machine().told.extend(request.events);
        Ok(Empty::new())
    }

    async fn delete_process(&self, _: &TtrpcContext, request: DeleteProcessRequest) -> ttrpc::Result<Empty> {
        self.silence().await;
        self.processes.lock().unwrap().remove(&name(&request.container_id, &request.exec_id));
        Ok(Empty::new())
    }

    async fn delete_container(
        &self,
        _: &TtrpcContext,
        request: DeleteContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.silence().await;
        self.processes.lock().unwrap().remove(&name(&request.container_id, ""));
        Ok(Empty::new())
    }
}
