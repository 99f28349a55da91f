//! The shim without containerd: what a client may do wrong, leave undone, or not be there for.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use bulkhead_tests::host::{Bundle, DEADLINE, TestHost, finish, process, stage, until};
use containerd_shim_protos::{
    Client, Events, TaskClient,
    api::{
        CheckpointTaskRequest, ConnectRequest, CreateTaskRequest, DeleteRequest, Empty, ExecProcessRequest,
        ForwardRequest, KillRequest, PidsRequest, ShutdownRequest, StartRequest, StateRequest, StatsRequest,
        Status, WaitRequest,
    },
    create_events,
    protobuf::well_known_types::any::Any,
};
use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use serde_json::json;
use ttrpc::{Code, TtrpcContext, context::with_duration};

/// For an answer that must not wait for a client's other doings.
const AT_ONCE: Duration = Duration::from_secs(60);

/// A daemon of the shim, started as containerd starts it.
struct Shim<'host> {
    host: &'host TestHost,
    namespace: String,
    id: String,
    bundle: PathBuf,
    task: TaskClient,
}

impl<'host> Shim<'host> {
    fn start(host: &'host TestHost, bundle: &Bundle, events: &str) -> Self {
        let (namespace, id) = (host.id("ns"), host.id("task"));
        let bundle = bundle.write().to_owned();
        let started = finish(&mut command(&namespace, &id, &bundle, events, "start"), b"", DEADLINE);
        let address = started.success();
        assert_eq!(fs::read_to_string(bundle.join("address")).unwrap(), address);
        let task = TaskClient::new(Client::connect(&address).unwrap());
        Self { host, namespace, id, bundle, task }
    }

    fn create(&self, stdout: &Path) -> ttrpc::Result<u32> {
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.to_string_lossy().into_owned(),
            stdout: stdout.to_string_lossy().into_owned(),
            ..Default::default()
        };
        Ok(self.task.create(with_duration(DEADLINE), &request)?.pid)
    }

    fn start_process(&self, exec_id: &str) {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let request = StartRequest { id, exec_id, ..Default::default() };
        self.task.start(with_duration(DEADLINE), &request).unwrap();
    }

    fn kill(&self, exec_id: &str) -> ttrpc::Result<Empty> {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let request = KillRequest { id, exec_id, signal: 9, ..Default::default() };
        self.task.kill(with_duration(AT_ONCE), &request)
    }

    fn wait(&self, exec_id: &str) -> u32 {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let request = WaitRequest { id, exec_id, ..Default::default() };
        self.task.wait(with_duration(AT_ONCE), &request).unwrap().exit_status
    }

    fn delete(&self, exec_id: &str) -> ttrpc::Result<u32> {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let request = DeleteRequest { id, exec_id, ..Default::default() };
        Ok(self.task.delete(with_duration(AT_ONCE), &request)?.exit_status)
    }

    fn shut_down(&self) {
        let request = ShutdownRequest { id: self.id.clone(), ..Default::default() };
        // It may be gone before its answer is.
        let _ = self.task.shutdown(with_duration(AT_ONCE), &request);
    }

    fn is_there(&self) -> bool {
        process("bulkhead", &["-namespace", "serve"], &self.namespace).is_some()
    }

    /// Ends it as containerd does after the last task, with the program that containerd always runs then.
    fn end(self) {
        self.shut_down();
        until("the daemon is gone", DEADLINE, || (!self.is_there()).then_some(()));
        let mut delete = command(&self.namespace, &self.id, &self.bundle, "", "delete");
        assert!(!finish(&mut delete, b"", DEADLINE).success().is_empty());
        self.host.assert_no_trace_of(&self.id);
    }
}

/// The shim, called as containerd calls it.
pub(crate) fn command(namespace: &str, id: &str, bundle: &Path, events: &str, action: &str) -> Command {
    let mut command = Command::new(stage().join("bin/containerd-shim-bulkhead-v2"));
    command.args(["-namespace", namespace, "-address", "/nowhere", "-publish-binary", "", "-id", id]);
    command.arg(action).current_dir(bundle).env("TTRPC_ADDRESS", events).stdin(Stdio::null());
    command
}

/// A fifo that nobody reads.
fn stalled(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    path
}

pub(crate) fn code(error: &ttrpc::Error) -> Option<Code> {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code.enum_value().ok(),
        _ => None,
    }
}

#[test]
fn a_client_that_takes_no_output_holds_up_nothing() {
    let host = TestHost::new();
    let shim = Shim::start(&host, &host.bundle().args(["yes"]), "");
    shim.create(&stalled(host.dir(), "out")).unwrap();
    shim.start_process("");
    let spec = json!({"args": ["yes"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let exec = ExecProcessRequest {
        id: shim.id.clone(),
        exec_id: "more".into(),
        stdout: stalled(host.dir(), "exec-out").to_string_lossy().into_owned(),
        spec: Some(Any { value: spec.to_string().into_bytes(), ..Default::default() }).into(),
        ..Default::default()
    };
    shim.task.exec(with_duration(AT_ONCE), &exec).unwrap();
    shim.start_process("more");
    shim.kill("more").unwrap();
    assert_eq!(shim.wait("more"), 137);
    assert_eq!(shim.delete("more").unwrap(), 137);
    shim.kill("").unwrap();
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.delete("").unwrap(), 137);
    shim.end();
}

#[test]
fn output_that_nobody_has_taken_at_the_end_waits_for_a_client() {
    let host = TestHost::new();
    let shim = Shim::start(&host, &host.bundle().sh("echo last words"), "");
    let fifo = stalled(host.dir(), "out");
    shim.create(&fifo).unwrap();
    shim.start_process("");
    assert_eq!(shim.wait(""), 0);
    // As a containerd that was away: to open it waits for a writer, and to read it for the end.
    let (sender, read) = mpsc::channel();
    thread::spawn(move || sender.send(fs::read_to_string(fifo)));
    assert_eq!(read.recv_timeout(DEADLINE).unwrap().unwrap(), "last words\n");
    assert_eq!(shim.delete("").unwrap(), 0);
    shim.end();
}

#[test]
fn requests_that_make_no_sense_are_refused_and_change_nothing() {
    let host = TestHost::new();
    let shim = Shim::start(&host, &host.bundle().args(["sleep", "1000"]), "/nowhere/socket");
    let refused = |error: ttrpc::Error| code(&error);
    // A daemon without a task answers, as after a restart of containerd.
    let connect = ConnectRequest { id: shim.id.clone(), ..Default::default() };
    assert_eq!(shim.task.connect(with_duration(AT_ONCE), &connect).unwrap().task_pid, 0);
    assert_eq!(shim.kill("").map_err(refused), Err(Some(Code::NOT_FOUND)));
    assert_eq!(shim.create(Path::new("http://host/out")).map_err(refused), Err(Some(Code::INVALID_ARGUMENT)));
    assert!(shim.create(Path::new("/nowhere/out")).is_err());
    let bundle = "relative".to_owned();
    let relative = CreateTaskRequest { id: shim.id.clone(), bundle, ..Default::default() };
    let error = shim.task.create(with_duration(AT_ONCE), &relative).unwrap_err();
    assert_eq!(code(&error), Some(Code::INVALID_ARGUMENT));

    let pid = shim.create(Path::new("")).unwrap();
    assert_eq!(shim.create(Path::new("")).map_err(refused), Err(Some(Code::ALREADY_EXISTS)));
    // Another deletion of the pod's is no reason to end.
    shim.shut_down();
    shim.start_process("");
    let again = StartRequest { id: shim.id.clone(), ..Default::default() };
    let error = shim.task.start(with_duration(AT_ONCE), &again).unwrap_err();
    assert_eq!(code(&error), Some(Code::FAILED_PRECONDITION));
    assert_eq!(shim.delete("").map_err(refused), Err(Some(Code::FAILED_PRECONDITION)));
    assert_eq!(shim.kill("nobody").map_err(refused), Err(Some(Code::NOT_FOUND)));
    let checkpoint = CheckpointTaskRequest { id: shim.id.clone(), ..Default::default() };
    let error = shim.task.checkpoint(with_duration(AT_ONCE), &checkpoint).unwrap_err();
    assert_eq!(code(&error), Some(Code::UNIMPLEMENTED));

    shim.kill("").unwrap();
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.kill("").map_err(refused), Err(Some(Code::NOT_FOUND)));
    // Until it is deleted it has a pid and figures: an empty answer would mean that it was lost.
    let pids = PidsRequest { id: shim.id.clone(), ..Default::default() };
    let pids = shim.task.pids(with_duration(AT_ONCE), &pids).unwrap().processes;
    assert_eq!(pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid]);
    let stats = StatsRequest { id: shim.id.clone(), ..Default::default() };
    let stats = shim.task.stats(with_duration(AT_ONCE), &stats).unwrap().stats.unwrap();
    assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
    let state = StateRequest { id: shim.id.clone(), ..Default::default() };
    let state = shim.task.state(with_duration(AT_ONCE), &state).unwrap();
    assert_eq!((state.status.enum_value().unwrap(), state.exit_status), (Status::STOPPED, 137));
    shim.delete("").unwrap();
    shim.end();
}

/// Takes events as containerd does.
struct Taken(Mutex<mpsc::Sender<String>>);

impl Events for Taken {
    fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let topic = request.envelope.topic.clone();
        self.0.lock().unwrap().send(topic).unwrap();
        Ok(Empty::new())
    }
}

#[test]
fn events_wait_for_a_containerd_that_is_away_and_come_in_order() {
    let host = TestHost::new();
    // ttrpc keeps the socket of a server for as long as the process lives.
    let containerd = tempfile::tempdir().unwrap();
    let socket = containerd.path().join("events");
    let shim = Shim::start(&host, &host.bundle().args(["false"]), socket.to_str().unwrap());
    shim.create(Path::new("")).unwrap();
    shim.start_process("");
    assert_eq!(shim.wait(""), 1);
    let (sender, taken) = mpsc::channel();
    let listener = UnixListener::bind(&socket).unwrap();
    nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut server = ttrpc::Server::new()
        .add_listener(std::os::fd::IntoRawFd::into_raw_fd(listener))
        .unwrap()
        .register_service(create_events(Arc::new(Taken(Mutex::new(sender)))));
    server.start().unwrap();
    shim.delete("").unwrap();
    let topics: Vec<_> = (0..4).map(|_| taken.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    shim.end();
    server.shutdown();
}
