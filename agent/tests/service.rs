//! The whole agent without a VM: its ttrpc service over a socket pair, streams opened as the host opens them,
//! containers of busybox on this machine as root.
//!
//! One agent serves all tests, as in a guest, because only one may reap. What a machine lacks is said and skipped
//! (see `support`).
#![allow(clippy::unwrap_used)] // all of this is test code; the lint only knows functions marked as tests

mod support;

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use bulkhead_agent::{
    control,
    reaper::Reaper,
    sandbox::{Sandbox, Shared},
    service::Service,
    stdio::{listener, pending::PendingStreams},
    watches::Watches,
};
use bulkhead_protocol::{
    agent::{
        AdjustTimeRequest, AgentClient, CreateContainerRequest, DeleteContainerRequest, DeleteProcessRequest,
        Empty, ExecRequest, ListProcessesRequest, ResizeTtyRequest, SignalProcessRequest,
        StartContainerRequest, Stdio, WaitProcessRequest, WaitProcessResponse,
    },
    container::{ContainerSpec, ProcessSpec},
    greeting::Greeting,
};
use support::{Host, process, spec};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    runtime,
};
use ttrpc::{
    Code,
    r#async::{Client, transport::Socket},
    context::{Context, with_timeout},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// The agent's thread: takes connections and streams as the vsock listeners of a guest do.
struct Agent {
    connections: tokio::sync::mpsc::UnboundedSender<UnixStream>,
    streams: tokio::sync::mpsc::UnboundedSender<UnixStream>,
}

/// The first caller's rootfs serves all.
fn agent() -> Option<&'static Agent> {
    static AGENT: OnceLock<Option<Agent>> = OnceLock::new();
    AGENT.get_or_init(|| support::host().map(start_agent)).as_ref()
}

fn start_agent(host: Host) -> Agent {
    let layout = host.layout.clone();
    let watches = Watches::new(&layout.share, layout.volumes.clone());
    let sockets = layout.volumes.sockets().clone();
    // Statics are not dropped: the directory must go some other way, and a forgotten one is only in /tmp.
    std::mem::forget(host);
    let (connections, mut new_connections) = tokio::sync::mpsc::unbounded_channel::<UnixStream>();
    let (streams, mut new_streams) = tokio::sync::mpsc::unbounded_channel::<UnixStream>();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let table = Arc::new(PendingStreams::default());
            let shared = Shared { reaper: Reaper::start().unwrap(), streams: table.clone(), layout };
            let sandbox = Sandbox::new(shared);
            loop {
                tokio::select! {
                    Some(stream) = new_connections.recv() => {
                        stream.set_nonblocking(true).unwrap();
                        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
                        let service = Service::new(sandbox.clone(), sockets.clone(), watches.clone());
                        tokio::spawn(async move {
                            let mut stream = stream;
                            control::greet(&mut stream).await?;
                            control::serve(stream, service).await
                        });
                    }
                    Some(stream) = new_streams.recv() => {
                        let table = table.clone();
                        tokio::spawn(async move { listener::admit(OwnedFd::from(stream), &table).await });
                    }
                }
            }
        });
    });
    Agent { connections, streams }
}

/// The host's side of one container.
struct Container {
    agent: &'static Agent,
    client: AgentClient,
    id: String,
}

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn deadline() -> Context {
    with_timeout(DEADLINE.as_nanos() as i64)
}

async fn container() -> Option<Container> {
    let agent = agent()?;
    let (host, guest) = UnixStream::pair().unwrap();
    agent.connections.send(guest).unwrap();
    host.set_nonblocking(true).unwrap();
    let mut host = BufReader::with_capacity(1, tokio::net::UnixStream::from_std(host).unwrap());
    let mut greeting = String::new();
    host.read_line(&mut greeting).await.unwrap();
    greeting.parse::<Greeting>().unwrap();
    let client = AgentClient::new(Client::new(Socket::new(host.into_inner())));
    Some(Container { agent, client, id: unique("svc") })
}

/// The streams of one process, as the host holds them.
#[derive(Default)]
struct Streams {
    request: Stdio,
    stdin: Option<UnixStream>,
    stdout: Option<UnixStream>,
    stderr: Option<UnixStream>,
    tty: Option<UnixStream>,
}

impl Container {
    fn open(&self, token: &str, stream: &str) -> UnixStream {
        let (mut host, guest) = UnixStream::pair().unwrap();
        self.agent.streams.send(guest).unwrap();
        host.set_read_timeout(Some(DEADLINE)).unwrap();
        writeln!(host, "stdio {token} {stream}").unwrap();
        let mut answer = [0; 3];
        host.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ok\n");
        host
    }

    /// stdin, stdout and stderr.
    fn pipes(&self) -> Streams {
        let token = unique("tok");
        Streams {
            stdin: Some(self.open(&token, "stdin")),
            stdout: Some(self.open(&token, "stdout")),
            stderr: Some(self.open(&token, "stderr")),
            tty: None,
            request: Stdio { token, stdin: true, stdout: true, stderr: true, ..Stdio::new() },
        }
    }

    fn terminal(&self) -> Streams {
        let token = unique("tok");
        let tty = Some(self.open(&token, "tty"));
        Streams { tty, request: Stdio { token, tty: true, ..Stdio::new() }, ..Streams::default() }
    }

    async fn create(&self, spec: &ContainerSpec, streams: &Streams) -> ttrpc::Result<u32> {
        let request = CreateContainerRequest {
            container_id: self.id.clone(),
            spec: serde_json::to_vec(spec).unwrap(),
            stdio: Some(streams.request.clone()).into(),
            ..CreateContainerRequest::new()
        };
        self.client.create_container(deadline(), &request).await.map(|created| created.pid)
    }

    async fn start(&self) -> ttrpc::Result<u32> {
        let request = StartContainerRequest { container_id: self.id.clone(), ..StartContainerRequest::new() };
        self.client.start_container(deadline(), &request).await.map(|started| started.pid)
    }

    async fn exec(&self, exec_id: &str, process: &ProcessSpec, streams: &Streams) -> ttrpc::Result<u32> {
        let request = ExecRequest {
            container_id: self.id.clone(),
            exec_id: exec_id.into(),
            process: serde_json::to_vec(process).unwrap(),
            stdio: Some(streams.request.clone()).into(),
            ..ExecRequest::new()
        };
        self.client.exec(deadline(), &request).await.map(|spawned| spawned.pid)
    }

    async fn wait(&self, exec_id: &str) -> ttrpc::Result<WaitProcessResponse> {
        let request = WaitProcessRequest {
            container_id: self.id.clone(),
            exec_id: exec_id.into(),
            ..WaitProcessRequest::new()
        };
        self.client.wait_process(deadline(), &request).await
    }

    async fn signal(&self, exec_id: &str, signal: i32, all: bool) -> ttrpc::Result<()> {
        let request = SignalProcessRequest {
            container_id: self.id.clone(),
            exec_id: exec_id.into(),
            signal: signal as u32,
            all,
            ..SignalProcessRequest::new()
        };
        self.client.signal_process(deadline(), &request).await.map(drop)
    }

    async fn delete(&self) -> ttrpc::Result<()> {
        let request =
            DeleteContainerRequest { container_id: self.id.clone(), ..DeleteContainerRequest::new() };
        self.client.delete_container(deadline(), &request).await.map(drop)
    }

    /// A container that sleeps, to exec in.
    async fn sleeping(&self) {
        self.create(&spec(&["sleep", "1000"]), &Streams::default()).await.unwrap();
        self.start().await.unwrap();
    }

    async fn kill_and_delete(&self) {
        self.signal("", libc::SIGKILL, true).await.unwrap();
        self.wait("").await.unwrap();
        self.delete().await.unwrap();
    }
}

/// Reads a stream to its end beside the test.
async fn read(stream: Option<UnixStream>) -> Vec<u8> {
    let mut stream = stream.unwrap();
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
    .await
    .unwrap()
}

fn refusal<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("not a status: {other}"),
    }
}

#[tokio::test]
async fn the_clock_can_be_read_and_moved() {
    let Some(container) = container().await else { return };
    let client = &container.client;
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let before = now();
    let time = client.get_time(deadline(), &Empty::new()).await.unwrap();
    let seen = Duration::new(time.seconds.try_into().unwrap(), time.nanoseconds);
    assert!(before <= seen && seen <= now(), "{time:?}");
    // It is the clock of this machine, so by nothing.
    client.adjust_time(deadline(), &AdjustTimeRequest::new()).await.unwrap();
}

#[tokio::test]
async fn a_program_runs_its_output_arrives_whole_and_its_code_is_reported() {
    let Some(container) = container().await else { return };
    let streams = container.pipes();
    let created = container.create(&spec(&["sh", "-c", "echo out; echo err >&2; exit 42"]), &streams).await;
    assert_eq!(container.start().await.unwrap(), created.unwrap());
    let exited = container.wait("").await.unwrap();
    assert_eq!((exited.code, exited.signal), (42, 0));
    assert_eq!((exited.stdout_bytes, exited.stderr_bytes), (4, 4));
    assert_eq!(read(streams.stdout).await, b"out\n");
    assert_eq!(read(streams.stderr).await, b"err\n");
    assert_eq!(container.wait("").await.unwrap(), exited, "the status is kept");
    container.delete().await.unwrap();
    assert_eq!(refusal(container.wait("").await).0, Code::NOT_FOUND);
}

#[tokio::test]
async fn stdin_reaches_the_program_up_to_its_end() {
    let Some(container) = container().await else { return };
    let mut streams = container.pipes();
    container.create(&spec(&["cat"]), &streams).await.unwrap();
    container.start().await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    let stdout = tokio::spawn(read(streams.stdout));
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let bytes = sent.clone();
    let writer = tokio::task::spawn_blocking(move || {
        stdin.write_all(&bytes).unwrap();
        stdin.shutdown(Shutdown::Write).unwrap();
        stdin
    });
    let exited = container.wait("").await.unwrap();
    assert_eq!((exited.code, exited.stdout_bytes), (0, sent.len() as u64));
    assert_eq!(stdout.await.unwrap(), sent);
    drop(writer.await.unwrap());
    container.delete().await.unwrap();
}

#[tokio::test]
async fn many_short_processes_that_print_and_exit_at_once_lose_nothing() {
    let Some(container) = container().await else { return };
    container.sleeping().await;
    for (index, size) in [0, 1, 65_535, 65_536, 65_537, 200_000, 4_096, 131_072].into_iter().enumerate() {
        let exec_id = format!("e{index}");
        let streams = container.pipes();
        let script = format!("head -c {size} /dev/zero");
        container.exec(&exec_id, &process(&["sh", "-c", &script]), &streams).await.unwrap();
        let stdout = tokio::spawn(read(streams.stdout));
        let exited = container.wait(&exec_id).await.unwrap();
        assert_eq!((exited.code, exited.stdout_bytes), (0, size));
        assert_eq!(stdout.await.unwrap().len() as u64, size);
        let delete = DeleteProcessRequest {
            container_id: container.id.clone(),
            exec_id,
            ..DeleteProcessRequest::new()
        };
        container.client.delete_process(deadline(), &delete).await.unwrap();
    }
    container.kill_and_delete().await;
}

#[tokio::test]
async fn a_grandchild_that_holds_stdout_does_not_hold_up_the_exit() {
    let Some(container) = container().await else { return };
    container.sleeping().await;
    let streams = container.pipes();
    container.exec("e", &process(&["sh", "-c", "sleep 1000 & echo done"]), &streams).await.unwrap();
    let exited = container.wait("e").await.unwrap();
    assert_eq!((exited.code, exited.stdout_bytes), (0, 5));
    assert_eq!(read(streams.stdout).await, b"done\n");
    container.kill_and_delete().await;
}

#[tokio::test]
async fn signals_reach_the_process_they_name() {
    let Some(container) = container().await else { return };
    container.sleeping().await;
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV] {
        let exec_id = format!("s{signal}");
        container.exec(&exec_id, &process(&["sleep", "1000"]), &Streams::default()).await.unwrap();
        container.signal(&exec_id, signal, false).await.unwrap();
        let exited = container.wait(&exec_id).await.unwrap();
        assert_eq!((exited.code, exited.signal), (0, signal as u32));
        let refused = refusal(container.signal(&exec_id, signal, false).await);
        assert_eq!(refused, (Code::FAILED_PRECONDITION, "os: process already finished".into()));
    }
    container.kill_and_delete().await;
}

#[tokio::test]
async fn a_container_killed_before_start_reports_the_signal() {
    let Some(container) = container().await else { return };
    container.create(&spec(&["sleep", "1000"]), &Streams::default()).await.unwrap();
    container.signal("", libc::SIGKILL, false).await.unwrap();
    assert_eq!(container.wait("").await.unwrap().signal, libc::SIGKILL as u32);
    let refused = refusal(container.start().await);
    assert_eq!(refused, (Code::FAILED_PRECONDITION, "cannot start a container that has stopped".into()));
    container.delete().await.unwrap();
}

#[tokio::test]
async fn a_container_that_was_never_started_can_be_deleted_and_its_id_used_again() {
    let Some(container) = container().await else { return };
    for _ in 0..3 {
        container.create(&spec(&["sleep", "1000"]), &Streams::default()).await.unwrap();
        container.delete().await.unwrap();
    }
}

#[tokio::test]
async fn the_wrong_order_of_calls_is_refused_in_words() {
    let Some(container) = container().await else { return };
    container.create(&spec(&["sleep", "1000"]), &Streams::default()).await.unwrap();
    let again = refusal(container.create(&spec(&["id"]), &Streams::default()).await);
    assert_eq!(again.0, Code::ALREADY_EXISTS);
    container.start().await.unwrap();
    assert_eq!(refusal(container.start().await).1, "cannot start an already running container");
    assert_eq!(refusal(container.delete().await).0, Code::FAILED_PRECONDITION);
    container.exec("e", &process(&["sleep", "1000"]), &Streams::default()).await.unwrap();
    let twice = refusal(container.exec("e", &process(&["id"]), &Streams::default()).await);
    assert_eq!(twice.0, Code::ALREADY_EXISTS);
    container.kill_and_delete().await;
}

#[tokio::test]
async fn a_process_runs_in_a_container_that_has_not_started_and_the_init_starts_after_it() {
    let Some(container) = container().await else { return };
    container.create(&spec(&["sleep", "1000"]), &Streams::default()).await.unwrap();
    container.exec("early", &process(&["sh", "-c", "exit 5"]), &Streams::default()).await.unwrap();
    assert_eq!(container.wait("early").await.unwrap().code, 5);
    container.exec("left", &process(&["sleep", "1000"]), &Streams::default()).await.unwrap();
    container.start().await.unwrap();
    container.kill_and_delete().await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_reads_as_callers_expect_and_leaves_nothing() {
    let Some(container) = container().await else { return };
    let (code, text) = refusal(container.create(&spec(&["no-such"]), &Streams::default()).await);
    assert_eq!(code, Code::ABORTED);
    assert!(text.contains(r#"exec: "no-such": executable file not found in $PATH"#), "{text}");
    assert_eq!(refusal(container.delete().await).0, Code::NOT_FOUND);
    container.sleeping().await;
    let (code, text) = refusal(container.exec("e", &process(&["/none"]), &Streams::default()).await);
    assert_eq!(code, Code::ABORTED);
    assert!(text.contains(r#"exec: "/none": stat /none: no such file or directory"#), "{text}");
    assert_eq!(refusal(container.wait("e").await).0, Code::NOT_FOUND);
    container.kill_and_delete().await;
}

#[tokio::test]
async fn processes_are_listed_with_their_exec_ids() {
    let Some(container) = container().await else { return };
    container.sleeping().await;
    let pid = container.exec("e", &process(&["sleep", "999"]), &Streams::default()).await.unwrap();
    let request = ListProcessesRequest { container_id: container.id.clone(), ..ListProcessesRequest::new() };
    let listed = container.client.list_processes(deadline(), &request).await.unwrap().processes;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let exec = listed.iter().find(|process| process.exec_id == "e").unwrap();
    assert_eq!((exec.pid, exec.command.as_str()), (pid, "sleep 999"));
    container.kill_and_delete().await;
}

#[tokio::test]
async fn a_terminal_echoes_resizes_and_counts() {
    let Some(container) = container().await else { return };
    let streams = container.terminal();
    let mut spec = spec(&["sh", "-c", "stty size; read line; stty size; echo got $line"]);
    spec.process.terminal = true;
    spec.process.console_size = Some((100, 30));
    container.create(&spec, &streams).await.unwrap();
    container.start().await.unwrap();
    let mut tty = streams.tty.unwrap();
    let mut first = [0; 8];
    tty.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"30 100\r\n");
    let resize = ResizeTtyRequest {
        container_id: container.id.clone(),
        columns: 132,
        rows: 43,
        ..ResizeTtyRequest::new()
    };
    container.client.resize_tty(deadline(), &resize).await.unwrap();
    tty.write_all(b"hello\n").unwrap();
    let exited = container.wait("").await.unwrap();
    let rest = read(Some(tty)).await;
    assert_eq!(String::from_utf8_lossy(&rest), "hello\r\n43 132\r\ngot hello\r\n");
    assert_eq!((exited.code, exited.stdout_bytes), (0, (first.len() + rest.len()) as u64));
    container.delete().await.unwrap();
}

#[tokio::test]
async fn ctrl_c_on_a_terminal_interrupts_the_foreground_process() {
    let Some(container) = container().await else { return };
    container.sleeping().await;
    let streams = container.terminal();
    let mut process = process(&["sh", "-c", "echo ready; exec sleep 1000"]);
    process.terminal = true;
    container.exec("e", &process, &streams).await.unwrap();
    let mut tty = streams.tty.unwrap();
    tty.read_exact(&mut [0; 7]).unwrap();
    tty.write_all(b"\x03").unwrap();
    assert_eq!(container.wait("e").await.unwrap().signal, libc::SIGINT as u32);
    container.kill_and_delete().await;
}

#[tokio::test]
async fn a_host_that_stops_reading_does_not_stop_the_exit_from_being_reported() {
    let Some(container) = container().await else { return };
    let streams = container.pipes();
    container.create(&spec(&["sh", "-c", "head -c 100000000 /dev/zero"]), &streams).await.unwrap();
    container.start().await.unwrap();
    container.signal("", libc::SIGKILL, true).await.unwrap();
    let exited = container.wait("").await.unwrap();
    assert_eq!(exited.signal, libc::SIGKILL as u32);
    // The container may go while its last bytes are on their way.
    container.delete().await.unwrap();
    assert_eq!(read(streams.stdout).await.len() as u64, exited.stdout_bytes);
}
