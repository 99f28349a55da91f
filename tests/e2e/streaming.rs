//! What `kubectl exec`, `attach` and `port-forward` come to: containerd's streaming server between a client and the shim. The client is
//! crictl's stand-in, which speaks SPDY as the kubelet does.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use bulkhead_tests::{
    host::{Cri, DEADLINE, Pod, Terminal, cri_api as api, cri_container as container, finish, until},
    probe::bytes,
};

use crate::cri::removed;

const LARGE: usize = 1 << 20;

fn crictl<S: AsRef<OsStr>>(cri: &Cri, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-crictl"));
    command.arg("--runtime-endpoint").arg(cri.endpoint()).args(args).stdin(Stdio::null());
    command
}

/// With a standard input that somebody may attach to.
fn with_input(mut config: api::ContainerConfig, tty: bool) -> api::ContainerConfig {
    (config.stdin, config.tty) = (true, tty);
    config
}

fn is_running(cri: &Cri, id: &str) -> bool {
    cri.status(id).state == api::ContainerState::CONTAINER_RUNNING.into()
}

/// Prints by itself: containerd takes a client's input before it gives the client output, so a client that has heard nothing may miss the
/// answer to what it says.
const TICKS: &str = "while :; do echo tick; sleep 1; done &";

/// Has the shell on a terminal wait for this size, and say so.
fn until_it_has_size(terminal: &mut Terminal, columns: u16, rows: u16) {
    // The echo of what is typed is not what is waited for.
    terminal.send(&format!(
        "until [ \"$(busybox stty size)\" = '{rows} {columns}' ]; do :; done; echo has it''s size\n"
    ));
    terminal.expect("has its size", DEADLINE);
}

#[test]
fn the_streams_of_a_pod_reach_a_client() {
    reach_a_client(&mut Cri::new());
}

pub(crate) fn reach_a_client(cri: &mut Cri) {
    let pod = cri.pod("streams");
    let serves = cri.started(&pod, container("serves", &["probe", "serve", "127.0.0.1:8080", "[::1]:8081"]));
    executes(cri, &serves);
    executes_on_a_terminal(cri, &serves);
    attaches(cri, &pod);
    attaches_to_a_terminal(cri, &pod);
    forwards(cri, &pod);
    removed(cri, &pod);
}

fn executes(cri: &Cri, id: &str) {
    let exec = |flags: &[&str], command: &[&str], input: &[u8]| {
        finish(&mut crictl(cri, [&["exec"], flags, &[id], command].concat()), input, DEADLINE)
    };
    let script = "cat; echo err >&2; exit 7";
    let done = exec(&["-i"], &["sh", "-c", script], b"in\n");
    done.failure(1, &["err\n", "command terminated with exit code 7"]);
    assert_eq!(done.text(), "in\n");
    // Without -i there is no input to wait for.
    let done = exec(&[], &["sh", "-c", "cat; echo out; echo err >&2"], b"");
    assert_eq!((done.success(), done.errors()), ("out\n".to_owned(), "err\n".to_owned()));
    exec(&[], &["no-such-program"], b"").failure(1, &["executable file not found in $PATH"]);
    // Whole, both ways at once, and to the end.
    let large = bytes(3, LARGE);
    let done = exec(&["-i"], &["cat"], &large);
    done.exited(0);
    assert!(done.stdout == large);
    // What is written last is not lost at the exit.
    let done = exec(&[], &["probe", "spew", "5", &LARGE.to_string()], b"");
    done.exited(0);
    assert!(done.stdout == bytes(5, LARGE));
    // Who closes the input early is no wait for it.
    exec(&["-i"], &["sh", "-c", "exec <&-; exit 0"], &large).exited(0);
}

fn executes_on_a_terminal(cri: &Cri, id: &str) {
    let mut terminal = Terminal::spawn(&mut crictl(cri, ["exec", "-it", id, "sh"]), 100, 40);
    until_it_has_size(&mut terminal, 100, 40);
    terminal.resize(120, 50);
    until_it_has_size(&mut terminal, 120, 50);
    terminal.send("busybox tty; exit 3\n");
    terminal.expect("/dev/pts/", DEADLINE);
    terminal.expect("command terminated with exit code 3", DEADLINE);
    assert_eq!(terminal.wait(DEADLINE).code(), Some(1));
}

fn attaches(cri: &mut Cri, pod: &Pod) {
    let answers = "while read -r line; do echo out $line; echo err $line >&2; done; echo end of input; exec sleep 100000";
    let script = format!("{TICKS} {answers}");
    let id = cri.started(pod, with_input(container("talks", &["sh", "-c", &script]), false));
    let attach = |cri: &Cri| {
        let mut terminal = Terminal::spawn(&mut crictl(cri, ["attach", "-i", &id]), 80, 24);
        terminal.expect("tick", DEADLINE);
        terminal
    };
    let mut first = attach(cri);
    first.send("one\n");
    first.expect("out one", DEADLINE);
    first.expect("err one", DEADLINE);
    // Both hear what either says.
    let mut second = attach(cri);
    second.send("two\n");
    first.expect("out two", DEADLINE);
    second.expect("out two", DEADLINE);
    first.send("three\n");
    first.expect("out three", DEADLINE);
    second.expect("out three", DEADLINE);
    // A client that goes takes neither the container along nor its input.
    drop(first);
    second.send("four\n");
    second.expect("out four", DEADLINE);
    // Neither does a containerd that goes.
    cri.restart_after(|| ());
    assert!(second.wait(DEADLINE).success());
    let mut third = attach(cri);
    third.send("five\n");
    third.expect("out five", DEADLINE);
    assert!(is_running(cri, &id));
    let log = cri.container_log("talks");
    assert!(log.contains(" stdout F out five\n") && log.contains(" stderr F err one\n"), "{log}");
    assert!(!log.contains("end of input"), "{log}");
    cri.stop(&id, 0);
    // With the container all of its clients end.
    assert!(third.wait(DEADLINE).success());
}

fn attaches_to_a_terminal(cri: &Cri, pod: &Pod) {
    let script = format!("{TICKS} exec sh");
    let id = cri.started(pod, with_input(container("shell", &["sh", "-c", &script]), true));
    let attach = |columns, rows| {
        let mut terminal = Terminal::spawn(&mut crictl(cri, ["attach", "-it", &id]), columns, rows);
        terminal.expect("tick", DEADLINE);
        terminal
    };
    let mut first = attach(90, 30);
    until_it_has_size(&mut first, 90, 30);
    first.resize(70, 20);
    until_it_has_size(&mut first, 70, 20);
    drop(first);
    let mut second = attach(110, 60);
    until_it_has_size(&mut second, 110, 60);
    second.send("exit 5\n");
    assert!(second.wait(DEADLINE).success());
    assert_eq!(cri.exited(&id).exit_code, 5);
}

/// `crictl port-forward`, which ends with this.
struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    fn to(cri: &Cri, pod: &Pod, port: u16) -> Self {
        let said = cri.dir().join(format!("forward{port}"));
        let output = || File::options().create(true).append(true).open(&said).unwrap();
        let ports = format!(":{port}");
        let mut command = crictl(cri, ["port-forward", &pod.id, &ports]);
        let child = command.stdout(output()).stderr(output()).spawn().unwrap();
        let port = until("crictl listens", DEADLINE, || Self::listens(&said));
        Self { child, port }
    }

    fn listens(said: &Path) -> Option<u16> {
        let said = fs::read_to_string(said).unwrap();
        let (_, rest) = said.split_once("Forwarding from 127.0.0.1:")?;
        rest.split_once(' ')?.0.parse().ok()
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forwards(cri: &Cri, pod: &Pod) {
    // containerd tries 127.0.0.1 first, and then ::1.
    for port in [8080, 8081] {
        let forward = Forward::to(cri, pod, port);
        thread::scope(|scope| {
            for seed in 0..2 {
                let forward = &forward;
                scope.spawn(move || {
                    let sent = bytes(seed, LARGE);
                    let (mut client, mut received) = (forward.connect(), vec![0; LARGE]);
                    // Not ended: containerd gives the other way a second then.
                    let mut writer = client.try_clone().unwrap();
                    thread::scope(|scope| {
                        scope.spawn(|| writer.write_all(&sent).unwrap());
                        client.read_exact(&mut received).unwrap();
                    });
                    assert!(received == sent, "{port} {seed}");
                });
            }
        });
    }
    // Nobody listens in the guest: the client hears the end, and crictl says why.
    let forward = Forward::to(cri, pod, 9);
    assert_eq!(forward.connect().read(&mut [0]).unwrap(), 0);
    let why = until("it is said why", DEADLINE, || {
        let said = fs::read_to_string(cri.dir().join("forward9")).unwrap();
        said.lines().find(|line| line.contains("error")).map(str::to_owned)
    });
    assert!(why.contains("connection reset"), "{why}");
}
