use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    thread,
};

use bulkhead_protocol::stdio::Stream;

use super::*;
use crate::store::names;

fn exec_plan() -> Plan {
    let process = crate::sandbox::test_process(&["true"]);
    let plan = Box::new(ExecPlan { process, ignore_paused: false, cgroup: String::new() });
    Plan {
        root: "/run/bulkhead".into(),
        id: "web".parse().unwrap(),
        work: Work::Exec { exec_id: "e".parse().unwrap(), plan },
        terminal: Some(Terminal::Console("/run/console.sock".into())),
        detach: true,
        view: "/bundle/rootfs".into(),
    }
}

#[test]
fn a_plan_arrives_as_it_was_sent() {
    let (command, proxy) = UnixStream::pair().unwrap();
    let mut line = serde_json::to_vec(&exec_plan()).unwrap();
    line.push(b'\n');
    (&command).write_all(&line).unwrap();
    assert_eq!(read_plan(&proxy).unwrap(), exec_plan());
}

#[test]
fn a_command_that_dies_before_the_plan_is_an_error() {
    let (command, proxy) = UnixStream::pair().unwrap();
    (&command).write_all(b"{\"root\":").unwrap();
    drop(command);
    assert!(read_plan(&proxy).is_err());
}

#[test]
fn a_report_is_one_line_and_the_end() {
    let (mut command, proxy) = UnixStream::pair().unwrap();
    tell(&proxy, &Report::Failed { message: "a\nb".into(), gone: true });
    let mut text = String::new();
    command.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 1);
    let report: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(report, Report::Failed { message: "a\nb".into(), gone: true });
}

/// A VMM and agent that answer each connection with `vmm` and then `agent`.
fn serve(
    listener: UnixListener,
    vmm: &'static [u8],
    agent: &'static [u8],
) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        // The headers come after all connects, in any order of service.
        let mut sockets: Vec<UnixStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        for socket in &mut sockets {
            assert_eq!(line(socket), "CONNECT 1025\n");
            // A client that the first answer refused may be gone before the second.
            let _ = socket.write_all(vmm);
        }
        let mut headers = Vec::new();
        for socket in &mut sockets {
            headers.push(line(socket));
            // A refused client is gone by now.
            let _ = socket.write_all(agent);
        }
        headers
    })
}

fn line(socket: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while text.last() != Some(&b'\n') && matches!(socket.read(&mut byte), Ok(1)) {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn open_streams(vmm: &'static [u8], agent: &'static [u8]) -> (Result<Vec<UnixStream>, String>, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::claim(root.path(), &"web".parse().unwrap()).unwrap();
    let served = serve(dir.bind(names::VSOCK_SOCKET).unwrap(), vmm, agent);
    let token = "abc".parse().unwrap();
    let opened = streams::open(&dir, &token, &[Stream::Stdout, Stream::Stderr]);
    (opened.map_err(|e| e.to_string()), served.join().unwrap())
}

#[test]
fn what_follows_the_agents_answer_is_left_in_the_stream() {
    let (opened, headers) = open_streams(b"OK 1073741824\n", b"ok\nfirst output");
    assert_eq!(headers, ["stdio abc stdout\n", "stdio abc stderr\n"]);
    let mut rest = [0; 12];
    opened.unwrap()[0].read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"first output");
}

#[test]
fn a_refusal_by_the_vmm_or_the_agent_is_told_apart() {
    let (refused, _) = open_streams(b"NO\n", b"");
    assert!(refused.unwrap_err().starts_with("the VMM refuses Stdout"));
    let (refused, _) = open_streams(b"OK 1\n", b"no\n");
    assert_eq!(refused.unwrap_err(), "the guest's agent refuses Stdout");
}

#[test]
fn tokens_are_long_and_differ() {
    let (a, b) = (streams::token().unwrap(), streams::token().unwrap());
    assert_eq!(a.as_str().len(), 32);
    assert_ne!(a, b);
}
