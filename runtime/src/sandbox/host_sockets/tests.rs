use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream as StdStream},
    path::Path,
    thread,
};

use rustix::fs::{Mode, OFlags, open};

use super::*;
use crate::store::Door;

fn held(path: &Path) -> OwnedFd {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn volume(number: u64) -> SharePath {
    SharePath::of_volume(number)
}

/// A service of the host: sends back what comes, and "end" behind it.
fn service(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            received.extend(b"end");
            client.write_all(&received).unwrap();
        }
    });
}

/// The VMM with the agent behind it: takes one stream, and has the program of the guest say a few words by it.
fn program(dir: &Path) -> thread::JoinHandle<(Vec<String>, io::Result<Vec<u8>>)> {
    let listener = UnixListener::bind(dir.join("vsock.sock")).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::with_capacity(1, stream.try_clone().unwrap()).lines();
        let lines = vec![lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()];
        stream.write_all(b"OK 1\nok\nhello, ").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut received = Vec::new();
        let read = stream.read_to_end(&mut received);
        (lines, read.map(|_| received))
    })
}

fn sockets(dir: &Path) -> HostSockets {
    HostSockets::new(Streams::new(Door::new(File::open(dir).unwrap().into(), "vsock.sock")))
}

async fn carry(sockets: &HostSockets, volume: &SharePath) {
    let socket = sockets.sockets().get(volume).unwrap().clone();
    let place = sockets.0.places.clone().acquire_owned().await.unwrap();
    sockets.clone().carry(7, socket, place).await;
}

#[tokio::test]
async fn a_connection_leads_to_the_socket_that_was_opened_wherever_it_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("service"), dir.path().join("moved"));
    service(&path);
    let sockets = sockets(dir.path());
    sockets.add(volume(3), held(&path));
    // Another one has its name.
    std::fs::rename(&path, &moved).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    other.set_nonblocking(true).unwrap();
    let program = program(dir.path());
    carry(&sockets, &volume(3)).await;
    let (lines, received) = program.join().unwrap();
    assert_eq!(lines, ["CONNECT 1026", "socket 7"]);
    assert_eq!(received.unwrap(), b"hello, end");
    assert_eq!(other.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(sockets.0.places.available_permits(), limits::RELAYS);
}

#[tokio::test]
async fn a_socket_on_which_nobody_listens_closes_the_programs_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service");
    drop(UnixListener::bind(&path).unwrap());
    let sockets = sockets(dir.path());
    sockets.add(volume(3), held(&path));
    let program = program(dir.path());
    carry(&sockets, &volume(3)).await;
    // The words that nobody has read make it a reset.
    assert_eq!(program.join().unwrap().1.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_full_backlog_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = StdStream::connect(&path).unwrap();
    let socket = held(&path);
    let full = reach(socket.as_fd());
    tokio::pin!(full);
    assert!(timeout(Duration::from_millis(1), &mut full).await.is_err());
    listener.accept().unwrap();
    full.await.unwrap();
}
