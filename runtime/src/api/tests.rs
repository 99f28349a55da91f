//! The server's inside, from its socket to a fake agent: what a client of the Task API sees.

mod ended;
mod force;

use std::{
    io::{Seek as _, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    process::Command,
    sync::Arc,
};

use bulkhead_protocol::sandbox::{
    AttachProxyRequest, BeginCreateRequest, CreationRequest, ProcessesRequest, WaitOomRequest,
    WaitProcessRequest,
};
use containerd_shim_protos::api::{
    CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, PauseRequest, ResumeRequest,
    StartRequest, StateRequest, StatsRequest, Status as TaskStatus, UpdateTaskRequest, WaitRequest,
};
use tokio::sync::Notify;
use ttrpc::Code;

use super::{
    client::{CallError, Server, bounded},
    connections::Connections,
    container_options, exec_spec, server,
};
use crate::{
    container::{ContainerPlan, Containers, ExecPlan, test_request},
    sandbox::{
        Failure, Guest, Parts, Sandbox,
        boot::{BootError, boot_on},
        clock::Clock,
        fake::{self, FakeAgent, PATIENCE, SIZES, inputs, null, process, vmm},
        nics::Nics,
        resize::Machine,
        share::Share,
        sizing::Memory,
        timeline::Timeline,
        vmm::{Over, Reason, Vmm, processes::Processes},
    },
    store::{self, Door, StateDir},
};

/// A server without its process: containers, services, socket.
struct TestServer {
    root: tempfile::TempDir,
    sandbox: Arc<Sandbox>,
    containers: Arc<Containers>,
    agent: FakeAgent,
    client: Server,
    connections: Connections,
    server: ttrpc::asynchronous::Server,
}

impl TestServer {
    async fn new() -> Self {
        Self::with(&FakeAgent::default()).await
    }

    async fn with(agent: &FakeAgent) -> Self {
        let server = Self::booting(agent).await;
        let agent = agent.connect();
        server.sandbox.booted(Guest { clock: Clock::follow(agent.clone()), agent });
        server
    }

    async fn booting(agent: &FakeAgent) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (sandbox, containers) = parts(root.path(), agent);
        let path = root.path().join("server.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let connections = Connections::new();
        let shutdown = Arc::new(Notify::new());
        let server =
            server::start_server(&containers, &shutdown, &connections, listener.into()).await.unwrap();
        let client = Server::on(std::os::unix::net::UnixStream::connect(&path).unwrap()).unwrap();
        Self { root, sandbox, containers, agent: agent.clone(), client, connections, server }
    }

    async fn create(&self, id: &str, args: &[&str]) -> Result<u32, CallError> {
        let options = Some(container_options(&plan(args)).unwrap()).into();
        let request = CreateTaskRequest { id: id.into(), options, ..Default::default() };
        Ok(self.client.task.create(bounded(), &request).await?.pid)
    }

    async fn start(&self, id: &str, exec_id: &str) -> Result<u32, CallError> {
        let request = StartRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        Ok(self.client.task.start(bounded(), &request).await?.pid)
    }

    async fn exec(&self, id: &str, exec_id: &str, args: &[&str]) -> Result<(), CallError> {
        let plan = ExecPlan { process: process(args), ignore_paused: false, cgroup: String::new() };
        let spec = Some(exec_spec(&plan).unwrap()).into();
        let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
        let request = ExecProcessRequest { id, exec_id, spec, ..Default::default() };
        self.client.task.exec(bounded(), &request).await?;
        Ok(())
    }

    async fn kill(&self, id: &str, signal: u32) -> Result<(), CallError> {
        let request = KillRequest { id: id.into(), signal, ..Default::default() };
        self.client.task.kill(bounded(), &request).await?;
        Ok(())
    }

    async fn wait(&self, id: &str, exec_id: &str) -> Result<u32, CallError> {
        let request = WaitRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        Ok(self.client.task.wait(bounded(), &request).await?.exit_status)
    }

    async fn status(&self, id: &str) -> Result<TaskStatus, CallError> {
        let request = StateRequest { id: id.into(), ..Default::default() };
        Ok(self.client.task.state(bounded(), &request).await?.status.enum_value().unwrap())
    }

    async fn attach(&self, id: &str, exec_id: &str, pid: u32) -> Result<(), CallError> {
        let (container_id, exec_id) = (id.to_owned(), exec_id.to_owned());
        let request = AttachProxyRequest { container_id, exec_id, pid, ..Default::default() };
        self.client.sandbox.attach_proxy(bounded(), &request).await?;
        Ok(())
    }
}

/// The request of a process to create a container, as the server reads it.
async fn begin(sandbox: &TestServer, id: &str, caller: store::Process) -> Result<(), CallError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&serde_json::to_vec(&test_request(id, caller)).unwrap()).unwrap();
    file.rewind().unwrap();
    let own = store::Process::current().unwrap();
    let request = BeginCreateRequest {
        pid: own.pid,
        start_ticks: own.start_ticks,
        fd: file.as_raw_fd().unsigned_abs(),
        ..Default::default()
    };
    sandbox.client.sandbox.begin_create(bounded(), &request).await?;
    Ok(())
}

fn named(id: &str) -> CreationRequest {
    CreationRequest { container_id: id.into(), ..Default::default() }
}

#[tokio::test]
async fn a_creation_is_found_by_others_when_it_is_committed() {
    let sandbox = TestServer::new().await;
    let own = store::Process::current().unwrap();
    begin(&sandbox, "second", own).await.unwrap();
    assert_eq!(code(begin(&sandbox, "second", own).await.unwrap_err()), Code::ALREADY_EXISTS);
    let commit = async || sandbox.client.sandbox.commit_create(bounded(), &named("second")).await;
    assert_eq!(code(commit().await.unwrap_err().into()), Code::FAILED_PRECONDITION, "not made");
    sandbox.create("second", &["sleep"]).await.unwrap();
    assert!(StateDir::records(sandbox.root.path()).unwrap().is_empty());
    commit().await.unwrap();
    assert_eq!(StateDir::records(sandbox.root.path()).unwrap().len(), 1);
    assert_eq!(code(commit().await.unwrap_err().into()), Code::NOT_FOUND);
}

#[tokio::test]
async fn an_aborted_creation_leaves_nothing_in_the_guest_and_on_the_host() {
    let sandbox = TestServer::new().await;
    begin(&sandbox, "second", store::Process::current().unwrap()).await.unwrap();
    sandbox.create("second", &["sleep"]).await.unwrap();
    sandbox.client.sandbox.abort_create(bounded(), &named("second")).await.unwrap();
    assert!(!sandbox.root.path().join("second").exists());
    assert_eq!(code(sandbox.status("second").await.unwrap_err()), Code::NOT_FOUND);
    begin(&sandbox, "second", store::Process::current().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_creation_whose_caller_ends_is_undone() {
    let sandbox = TestServer::new().await;
    let mut caller = Command::new("sleep").arg("600").spawn().unwrap();
    begin(&sandbox, "second", store::Process::of(caller.id()).unwrap()).await.unwrap();
    sandbox.create("second", &["sleep"]).await.unwrap();
    let path = sandbox.root.path().join("second");
    assert!(path.exists());
    caller.kill().unwrap();
    caller.wait().unwrap();
    let gone = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(code(sandbox.status("second").await.unwrap_err()), Code::NOT_FOUND);
}

#[tokio::test]
async fn a_caller_that_is_gone_begins_nothing() {
    let sandbox = TestServer::new().await;
    let gone = store::Process { pid: u32::MAX >> 1, start_ticks: 1 };
    assert_eq!(code(begin(&sandbox, "second", gone).await.unwrap_err()), Code::FAILED_PRECONDITION);
    assert!(!sandbox.root.path().join("second").exists());
}

fn code(error: CallError) -> Code {
    match error {
        CallError::Refused { code, .. } => code,
        CallError::Gone { reason } => panic!("server gone: {reason}"),
    }
}

/// A sandbox with a VMM that was told to boot nothing, made for the container `web`.
fn parts(root: &Path, agent: &FakeAgent) -> (Arc<Sandbox>, Arc<Containers>) {
    let (vmm, _) = vmm(fake::Guest::Works, agent.clone());
    let dir = StateDir::claim(root, &"web".parse().unwrap()).unwrap();
    let sandbox = Sandbox::new(Parts {
        host_container: Some("web".parse().unwrap()),
        cgroup: None,
        machine: Machine::new(vmm.clone(), SIZES, None, Memory::Limited),
        processes: Processes::of(std::process::id()).unwrap(),
        nics: Nics::new(vmm.clone(), dir.journal(), false, None),
        vsock: Door::new(fake::null(), "vsock.sock"),
        port_forward: false,
        share: Share::at(&root.join("share")).unwrap(),
        timeline: Timeline::default(),
    });
    let containers = Containers::new(sandbox.clone(), root.to_owned());
    let watching = containers.clone();
    tokio::spawn(async move { watching.over(vmm.wait_over().await) });
    (sandbox, containers)
}

fn plan(args: &[&str]) -> ContainerPlan {
    ContainerPlan {
        bundle: "/bundle".into(),
        exports: vec![],
        disks: vec![],
        guest: fake::spec(args),
        pod: crate::spec::PodLimits::default(),
        terminal: false,
    }
}

#[tokio::test]
async fn a_container_goes_through_its_life() {
    let sandbox = TestServer::new().await;
    sandbox.create("web", &["exit", "42"]).await.unwrap();
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::CREATED);
    sandbox.start("web", "").await.unwrap();
    assert_eq!(sandbox.wait("web", "").await.unwrap(), 42);
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::STOPPED);
    let exit: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sandbox.root.path().join("web/exit.json")).unwrap()).unwrap();
    assert_eq!(exit["code"], 42);
    let request = DeleteRequest { id: "web".into(), ..Default::default() };
    assert_eq!(sandbox.client.task.delete(bounded(), &request).await.unwrap().exit_status, 42);
    assert_eq!(code(sandbox.status("web").await.unwrap_err()), Code::NOT_FOUND);
    assert_eq!(sandbox.agent.machine().asked, ["revoke web"]);
}

#[tokio::test]
async fn what_the_lifecycle_forbids_is_refused_by_kind() {
    let sandbox = TestServer::new().await;
    assert_eq!(code(sandbox.start("web", "").await.unwrap_err()), Code::NOT_FOUND);
    sandbox.create("web", &["sleep"]).await.unwrap();
    assert_eq!(code(sandbox.create("web", &["sleep"]).await.unwrap_err()), Code::ALREADY_EXISTS);
    sandbox.start("web", "").await.unwrap();
    assert_eq!(code(sandbox.start("web", "").await.unwrap_err()), Code::FAILED_PRECONDITION);
    let delete = DeleteRequest { id: "web".into(), ..Default::default() };
    let refused = sandbox.client.task.delete(bounded(), &delete).await.unwrap_err();
    assert_eq!(code(refused.into()), Code::FAILED_PRECONDITION);
    sandbox.kill("web", 9).await.unwrap();
    assert_eq!(sandbox.wait("web", "").await.unwrap(), 137);
    assert_eq!(code(sandbox.kill("web", 15).await.unwrap_err()), Code::NOT_FOUND);
    assert_eq!(code(sandbox.exec("web", "e", &["sleep"]).await.unwrap_err()), Code::FAILED_PRECONDITION);
}

#[tokio::test]
async fn a_container_that_cannot_be_made_leaves_its_id_free_and_tells_the_guests_words() {
    let sandbox = TestServer::new().await;
    let error = sandbox.create("web", &["unmakeable"]).await.unwrap_err();
    assert_eq!(error.to_string(), "mount /proc: no such file or directory");
    assert_eq!(sandbox.agent.machine().asked, ["revoke web"]);
    sandbox.create("web", &["sleep"]).await.unwrap();
}

#[tokio::test]
async fn an_exec_has_its_own_exit_and_a_failed_one_leaves_its_id_free() {
    let sandbox = TestServer::new().await;
    sandbox.create("web", &["sleep"]).await.unwrap();
    sandbox.start("web", "").await.unwrap();
    sandbox.exec("web", "e", &["nope"]).await.unwrap();
    let error = sandbox.start("web", "e").await.unwrap_err();
    assert!(error.to_string().contains("executable file not found in $PATH"), "{error}");
    sandbox.exec("web", "e", &["exit", "3"]).await.unwrap();
    sandbox.start("web", "e").await.unwrap();
    assert_eq!(sandbox.wait("web", "e").await.unwrap(), 3);
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::RUNNING);
    let request = ProcessesRequest { container_id: "web".into(), ..Default::default() };
    let processes = sandbox.client.sandbox.processes(bounded(), &request).await.unwrap().processes;
    assert_eq!(processes[0].command, "sleep");
}

#[tokio::test]
async fn the_guests_clock_is_right_before_a_paused_container_goes_on() {
    let agent = FakeAgent::default();
    let sandbox = TestServer::with(&agent).await;
    sandbox.create("web", &["sleep"]).await.unwrap();
    sandbox.start("web", "").await.unwrap();
    let task = &sandbox.client.task;
    task.pause(bounded(), &PauseRequest { id: "web".into(), ..Default::default() }).await.unwrap();
    agent.machine().clock_behind = 3_600_000_000_000;
    agent.machine().asked.clear();
    task.resume(bounded(), &ResumeRequest { id: "web".into(), ..Default::default() }).await.unwrap();
    let asked = &agent.machine().asked;
    assert_eq!(asked.first().map(String::as_str), Some("adjust"), "{asked:?}");
    assert_eq!(asked.last().map(String::as_str), Some("resume"), "{asked:?}");
}

#[tokio::test]
async fn a_paused_container_takes_no_exec_until_it_resumes_and_can_be_killed() {
    let sandbox = TestServer::new().await;
    sandbox.create("web", &["sleep"]).await.unwrap();
    let pause = PauseRequest { id: "web".into(), ..Default::default() };
    let resume = ResumeRequest { id: "web".into(), ..Default::default() };
    let task = &sandbox.client.task;
    assert_eq!(code(task.pause(bounded(), &pause).await.unwrap_err().into()), Code::FAILED_PRECONDITION);
    sandbox.start("web", "").await.unwrap();
    let early = CallError::from(task.resume(bounded(), &resume).await.unwrap_err());
    assert_eq!(early.to_string(), "container not paused");
    task.pause(bounded(), &pause).await.unwrap();
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::PAUSED);
    let refused = sandbox.exec("web", "e", &["sleep"]).await.unwrap_err();
    assert!(refused.to_string().contains("paused container"), "{refused}");
    task.resume(bounded(), &resume).await.unwrap();
    sandbox.exec("web", "e", &["sleep"]).await.unwrap();
    task.pause(bounded(), &pause).await.unwrap();
    sandbox.kill("web", 9).await.unwrap();
    assert_eq!(sandbox.wait("web", "").await.unwrap(), 137);
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::STOPPED);
}

#[tokio::test]
async fn limits_are_checked_as_at_creation_and_the_guests_refusal_is_told() {
    let sandbox = TestServer::new().await;
    sandbox.create("web", &["sleep"]).await.unwrap();
    let update = async |json: &str| {
        let value = json.as_bytes().to_vec();
        let resources = protobuf::well_known_types::any::Any { value, ..Default::default() };
        let request =
            UpdateTaskRequest { id: "web".into(), resources: Some(resources).into(), ..Default::default() };
        sandbox.client.task.update(bounded(), &request).await.map(drop).map_err(CallError::from)
    };
    update(r#"{"pids":{"limit":5}}"#).await.unwrap();
    assert_eq!(code(update(r#"{"pids":{"limit":-5}}"#).await.unwrap_err()), Code::INVALID_ARGUMENT);
    let refused = update(r#"{"memory":{"limit":1}}"#).await.unwrap_err();
    assert_eq!(refused.to_string(), "set limit memory.max to 1: device or resource busy");
}

#[tokio::test]
async fn statistics_are_containerds_metrics() {
    let sandbox = TestServer::new().await;
    let request = StatsRequest { id: "web".into(), ..Default::default() };
    let missing = sandbox.client.task.stats(bounded(), &request).await.unwrap_err();
    assert_eq!(code(missing.into()), Code::NOT_FOUND);
    sandbox.create("web", &["sleep"]).await.unwrap();
    let answer = sandbox.client.task.stats(bounded(), &request).await.unwrap();
    let metrics = super::metrics_from_any(&answer.stats).unwrap();
    assert_eq!((metrics.memory.usage, metrics.pids.current), (4096, 1));
    let request = WaitOomRequest { container_id: "web".into(), seen: 2, ..Default::default() };
    assert_eq!(sandbox.client.sandbox.wait_oom(bounded(), &request).await.unwrap().kills, 3);
}

#[tokio::test]
async fn when_the_vm_dies_every_process_has_an_exit_and_the_reason_is_told() {
    let sandbox = TestServer::new().await;
    sandbox.create("web", &["sleep"]).await.unwrap();
    sandbox.start("web", "").await.unwrap();
    let request = WaitProcessRequest { container_id: "web".into(), ..Default::default() };
    let waiting = sandbox.client.sandbox.wait_process(bounded(), &request);
    sandbox.containers.over(Over { reason: Reason::Died, console_tail: "last line".into() });
    let exit = waiting.await.unwrap();
    assert_eq!((exit.signal, exit.sandbox_failure.contains("last line")), (9, true));
    assert_eq!(sandbox.status("web").await.unwrap(), TaskStatus::STOPPED);
}

#[tokio::test]
async fn a_process_dies_with_the_proxy_that_stands_for_it() {
    let sandbox = TestServer::new().await;
    let mut proxy = Command::new("sleep").arg("600").spawn().unwrap();
    sandbox.attach("web", "", proxy.id()).await.unwrap();
    assert_eq!(sandbox.create("web", &["sleep"]).await.unwrap(), proxy.id());
    sandbox.start("web", "").await.unwrap();
    assert_eq!(sandbox.containers.host_pids(), [proxy.id()]);
    proxy.kill().unwrap();
    let status = tokio::time::timeout(PATIENCE, sandbox.wait("web", "")).await.unwrap().unwrap();
    assert_eq!(status, 137);
    assert!(sandbox.containers.host_pids().is_empty());
    proxy.wait().unwrap();
}

#[tokio::test]
async fn attaching_waits_for_the_boot_and_tells_its_failure_and_what_to_do() {
    let sandbox = TestServer::booting(&FakeAgent::default()).await;
    let waiting = sandbox.attach("web", "", std::process::id());
    sandbox.sandbox.fail(Failure::from(BootError::from(Over::died())));
    let error = waiting.await.unwrap_err();
    assert_eq!(error.to_string(), "boot sandbox: the VMM died");
    assert_eq!(error.hint(), Some("`bulkhead doctor` checks whether this machine can run microVMs"));
}

#[tokio::test]
async fn a_pid_that_nobody_has_cannot_be_attached() {
    let sandbox = TestServer::new().await;
    for pid in [0, u32::MAX, 4_194_304] {
        assert_eq!(code(sandbox.attach("web", "", pid).await.unwrap_err()), Code::INVALID_ARGUMENT, "{pid}");
    }
}

#[tokio::test]
async fn the_last_answers_are_written_before_the_connections_count_as_closed() {
    let mut sandbox = TestServer::new().await;
    sandbox.create("web", &["sleep"]).await.unwrap();
    sandbox.start("web", "").await.unwrap();
    let client = sandbox.client.clone();
    let waiting = tokio::spawn(async move {
        let request = WaitRequest { id: "web".into(), ..Default::default() };
        client.task.wait(bounded(), &request).await.map(|answer| answer.exit_status)
    });
    while sandbox.kill("web", 15).await.is_ok() {}
    let closed = async {
        sandbox.server.shutdown().await.unwrap();
        sandbox.connections.all_closed().await;
    };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 143);
}

#[tokio::test]
async fn a_vm_whose_containers_are_gone_is_stopped() {
    let root = tempfile::tempdir().unwrap();
    let (sandbox, _containers) = parts(root.path(), &FakeAgent::default());
    let vmm = sandbox.machine().vmm();
    let agent = boot_on(vmm, null(), inputs(), &Timeline::default(), PATIENCE).await.unwrap();
    sandbox.booted(Guest { clock: Clock::follow(agent.clone()), agent });
    tokio::time::timeout(PATIENCE, sandbox.stop()).await.unwrap();
    gone(vmm).await;
}

async fn gone(vmm: &Vmm) {
    assert_ne!(vmm.wait_over().await.reason, Reason::Died);
}
