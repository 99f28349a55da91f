use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
};

use bulkhead_protocol::container::{SharePath, SocketFile};

use super::*;
use crate::{container::Layout, reaper::Reaper, sandbox::Shared};

fn own_network() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn wanted(family: Family, address: SocketAddr) -> LoopbackPort {
    LoopbackPort { container: "web".parse().unwrap(), family, port: address.port().try_into().unwrap() }
}

/// Entering a namespace takes root, also when it is the own one.
fn may_enter() -> bool {
    visit_network(own_network(), || ()).is_ok()
}

#[tokio::test]
async fn a_program_on_one_loopback_address_is_reached_by_either() {
    if !may_enter() {
        return;
    }
    let listeners = [
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
    ];
    for listener in listeners {
        let address = listener.local_addr().unwrap();
        for family in [Family::V4, Family::V6] {
            let program = connect(own_network(), &wanted(family, address)).await.unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            program.write_all(b"in\n").await.unwrap();
            let mut received = [0; 3];
            accepted.read_exact(&mut received).unwrap();
            accepted.write_all(b"out\n").unwrap();
            assert_eq!(program.read_line(8).await.unwrap(), "out");
        }
    }
}

#[tokio::test]
async fn a_port_on_which_nobody_listens_is_refused() {
    if !may_enter() {
        return;
    }
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let refused = connect(own_network(), &wanted(Family::V4, address)).await.unwrap_err();
    let RelayError::Connect { source, .. } = refused else { panic!("{refused}") };
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
}

/// A guest without containers, and the host's end of a stream to it.
fn guest() -> (Guest, UnixStream, OwnedFd) {
    let layout = Layout::guest();
    let sockets = layout.volumes.sockets().clone();
    let sandbox = Sandbox::new(Shared { reaper: Reaper::default(), streams: Arc::default(), layout });
    let (host, stream) = UnixStream::pair().unwrap();
    (Guest { sandbox, sockets }, host, stream.into())
}

#[tokio::test]
async fn a_stream_for_a_connection_that_waits_carries_it() {
    let (guest, mut host, stream) = guest();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let own = dir.path().metadata().unwrap();
    let (uid, gid) = (std::os::unix::fs::MetadataExt::uid(&own), std::os::unix::fs::MetadataExt::gid(&own));
    let file = SocketFile { mode: 0o600, uid, gid };
    let _listening = guest.sockets.listen(&path, file, SharePath::of_volume(0)).unwrap();
    let mut program = UnixStream::connect(&path).unwrap();
    program.write_all(b"question").unwrap();
    program.shutdown(std::net::Shutdown::Write).unwrap();
    let (number, _) = guest.sockets.wait().await.remove(0);
    host.write_all(format!("socket {number}\nanswer").as_bytes()).unwrap();
    host.shutdown(std::net::Shutdown::Write).unwrap();
    guest.carry(stream).await.unwrap();
    let (mut at_host, mut at_program) = (String::new(), String::new());
    host.read_to_string(&mut at_host).unwrap();
    program.read_to_string(&mut at_program).unwrap();
    assert_eq!((&*at_host, &*at_program), ("ok\nquestion", "answer"));
}

#[tokio::test]
async fn a_stream_that_leads_nowhere_is_closed_without_an_answer() {
    for line in ["socket 0\n", "loopback gone v4 80\n", "GET / HTTP/1.1\n", "socket 0"] {
        let (guest, mut host, stream) = guest();
        host.write_all(line.as_bytes()).unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        guest.carry(stream).await.unwrap_err();
        assert_eq!(host.read(&mut [0]).unwrap(), 0, "{line:?}");
    }
}
