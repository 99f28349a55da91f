use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
};

use super::*;

/// More than all buffers on the way hold together.
const LARGE: usize = 8 << 20;

/// A relay on a thread of its own: the two far ends, and how it ended.
fn relayed() -> (TcpStream, UnixStream, thread::JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (left, right) = (endpoint(accepted), endpoint(near));
            left.reset_on_close(true).unwrap();
            relay(&left, &right).await?;
            left.reset_on_close(false)
        })
    };
    (client, far, thread::spawn(work))
}

fn endpoint(stream: impl Into<OwnedFd>) -> Endpoint {
    Endpoint::new(stream.into()).unwrap()
}

fn bytes(seed: usize) -> Vec<u8> {
    (0..LARGE).map(|n| (n.wrapping_mul(seed) >> 7) as u8).collect()
}

#[test]
fn both_directions_carry_their_bytes_and_each_ends_by_itself() {
    let (mut client, mut far, ended) = relayed();
    let answer = thread::spawn(move || {
        let mut received = Vec::new();
        // Ends by the half-close alone: the client still reads.
        far.read_to_end(&mut received).unwrap();
        far.write_all(&bytes(11)).unwrap();
        received
    });
    client.write_all(&bytes(7)).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == bytes(11));
    assert!(answer.join().unwrap() == bytes(7));
    ended.join().unwrap().unwrap();
}

#[test]
fn directions_do_not_wait_for_each_other() {
    let (mut client, mut far, ended) = relayed();
    let mut both = client.try_clone().unwrap();
    let sent = thread::spawn(move || {
        both.write_all(&bytes(3)).unwrap();
        both.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let echo = thread::spawn(move || {
        let mut chunk = [0; 1000];
        while let count @ 1.. = far.read(&mut chunk).unwrap() {
            far.write_all(&chunk[..count]).unwrap();
        }
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == bytes(3));
    sent.join().unwrap();
    echo.join().unwrap();
    ended.join().unwrap().unwrap();
}

#[test]
fn a_side_that_leaves_without_an_end_is_a_reset_for_the_other() {
    let (mut client, mut far, ended) = relayed();
    far.write_all(b"half a sen").unwrap();
    let mut received = [0; 10];
    client.read_exact(&mut received).unwrap();
    drop(far);
    assert_eq!(client.read(&mut received).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ended.join().unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_client_that_resets_ends_the_other_side() {
    let (client, mut far, ended) = relayed();
    let client = resetting(client);
    drop(client);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    assert!(far.write(b"x").is_err());
    ended.join().unwrap().unwrap_err();
}

/// A stream whose close is a reset.
fn resetting(stream: TcpStream) -> TcpStream {
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    stream
}

#[test]
fn what_a_program_sends_before_it_closes_arrives_although_it_does_not_read() {
    let (program, end) = UnixStream::pair().unwrap();
    let (hop, mut service) = UnixStream::pair().unwrap();
    // The service speaks first, and nobody hears it.
    service.write_all(&[b'.'; 1000]).unwrap();
    (&program).write_all(&[b'x'; 100_000]).unwrap();
    drop(program);
    let ended = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { relay(&endpoint(end), &endpoint(hop)).await })
    });
    let mut received = Vec::new();
    service.read_to_end(&mut received).unwrap();
    assert_eq!(received, [b'x'; 100_000]);
    drop(service);
    assert_eq!(ended.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_line_ends_where_it_ends_and_has_a_cap() {
    let (mut host, near) = UnixStream::pair().unwrap();
    host.write_all(b"one\ntwo").unwrap();
    let near = endpoint(near);
    assert_eq!(near.read_line(4).await.unwrap(), "one");
    assert!(matches!(near.read_line(3).await, Err(LineError::TooLong(3))));
    host.write_all(b"\xff\nthree").unwrap();
    assert!(matches!(near.read_line(8).await, Err(LineError::NotText)));
    drop(host);
    assert!(matches!(near.read_line(8).await, Err(LineError::Read(_))));
}
