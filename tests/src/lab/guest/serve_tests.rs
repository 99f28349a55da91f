use std::time::Duration;

use super::*;

/// One served command, seen from its client.
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: Frame,
}

/// A client of `serve`, connected, with the request sent.
fn client(script: &str, terminal: Option<WindowSize>) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    thread::spawn(move || {
        serve(&server).ok();
        server.shutdown(Shutdown::Write).ok();
    });
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = Request {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: "/".to_owned(),
        terminal,
    };
    wire::send(&mut client, &Frame::Request(serde_json::to_vec(&request).unwrap())).unwrap();
    client
}

fn until_end(mut client: TcpStream) -> Seen {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match wire::receive(&mut client).unwrap().expect("an end") {
            Frame::Stdout(bytes) => stdout.extend(bytes),
            Frame::Stderr(bytes) => stderr.extend(bytes),
            end => return Seen { stdout, stderr, end },
        }
    }
}

#[test]
fn output_arrives_byte_for_byte_and_apart_before_the_exit() {
    let seen = until_end(client("head -c 300000 /dev/zero; printf 'a\\0b' >&2; exit 42", None));
    assert_eq!(seen.stdout, vec![0; 300_000]);
    assert_eq!(seen.stderr, b"a\0b");
    assert_eq!(seen.end, Frame::Exit(Exit::Code(42)));
}

#[test]
fn input_goes_in_up_to_its_end() {
    let mut client = client("cat", None);
    wire::send(&mut client, &Frame::Stdin(b"hello".to_vec())).unwrap();
    wire::send(&mut client, &Frame::Stdin(Vec::new())).unwrap();
    let seen = until_end(client);
    assert_eq!((seen.stdout.as_slice(), seen.end), (b"hello".as_slice(), Frame::Exit(Exit::Code(0))));
}

#[test]
fn a_death_by_signal_is_told_as_such() {
    assert_eq!(until_end(client("kill -TERM $$", None)).end, Frame::Exit(Exit::Signal(libc::SIGTERM)));
}

#[test]
fn a_background_child_that_keeps_the_pipes_does_not_delay_the_exit() {
    let seen = until_end(client("sleep 60 & echo $!", None));
    assert_eq!(seen.end, Frame::Exit(Exit::Code(0)));
    let pid = String::from_utf8(seen.stdout).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn a_background_child_that_never_stops_writing_does_not_delay_the_exit() {
    let seen = until_end(client("yes & echo $! >&2", None));
    assert_eq!(seen.end, Frame::Exit(Exit::Code(0)));
    let pid = String::from_utf8(seen.stderr).unwrap().trim().parse().unwrap();
    // It may have died of the closed pipe already.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
}

#[test]
fn a_terminal_has_the_size_asked_for_and_is_resized() {
    let mut client = client("stty size; read _; stty size", Some(WindowSize { rows: 10, columns: 20 }));
    let Some(Frame::Stdout(first)) = wire::receive(&mut client).unwrap() else { panic!("no first size") };
    assert_eq!(first, b"10 20\r\n");
    wire::send(&mut client, &Frame::Resize(WindowSize { rows: 30, columns: 40 })).unwrap();
    wire::send(&mut client, &Frame::Stdin(b"\n".to_vec())).unwrap();
    let seen = until_end(client);
    assert!(seen.stdout.ends_with(b"30 40\r\n"), "{:?}", String::from_utf8_lossy(&seen.stdout));
}

#[test]
fn a_client_that_goes_away_takes_the_command_along() {
    let mut client = client("echo $$; exec sleep 60", None);
    let Some(Frame::Stdout(pid)) = wire::receive(&mut client).unwrap() else { panic!("no pid") };
    let pid: i32 = String::from_utf8(pid).unwrap().trim().parse().unwrap();
    let pidfd = pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    drop(client);
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap(), 1, "it must die");
}

#[test]
fn a_program_that_is_not_there_is_refused_by_name() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    thread::spawn(move || serve(&server));
    let request = Request {
        argv: vec!["no-such-program".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        terminal: None,
    };
    wire::send(&mut client, &Frame::Request(serde_json::to_vec(&request).unwrap())).unwrap();
    let Some(Frame::Refused(reason)) = wire::receive(&mut client).unwrap() else { panic!("not refused") };
    assert!(reason.starts_with("no-such-program: "), "{reason}");
}
