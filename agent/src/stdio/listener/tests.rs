use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use bulkhead_protocol::stdio::Stream;

use super::*;
use crate::stdio::pending::Wanted;

fn pair() -> (UnixStream, OwnedFd) {
    let (host, agent) = UnixStream::pair().unwrap();
    (host, agent.into())
}

#[tokio::test]
async fn a_header_is_answered_and_what_follows_it_stays_in_the_stream() {
    let (mut host, agent) = pair();
    host.write_all(b"stdio tok stdin\nfirst bytes").unwrap();
    let pending = PendingStreams::default();
    admit(agent, &pending).await.unwrap();
    let mut answer = [0; 3];
    host.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, ACCEPTED);
    let wanted = Wanted { stdin: true, ..Wanted::default() };
    let streams = pending.take(&"tok".parse().unwrap(), wanted, Instant::now()).unwrap();
    let stream = Endpoint::new(streams.stdin.unwrap()).unwrap();
    let mut rest = [0; 64];
    let count = stream.read(&mut rest).await.unwrap();
    assert_eq!(&rest[..count], b"first bytes");
}

#[tokio::test]
async fn a_line_without_end_is_refused_at_the_cap() {
    let (mut host, agent) = pair();
    host.write_all(&[b'a'; limits::LINE + 100]).unwrap();
    assert!(matches!(
        admit(agent, &PendingStreams::default()).await,
        Err(AcceptError::Line(LineError::TooLong(_)))
    ));
}

#[tokio::test]
async fn nonsense_and_silence_are_refused() {
    let (mut host, agent) = pair();
    host.write_all(b"GET / HTTP/1.1\n").unwrap();
    assert!(matches!(admit(agent, &PendingStreams::default()).await, Err(AcceptError::Header(HeaderError))));
    let (host, agent) = pair();
    drop(host);
    assert!(matches!(
        admit(agent, &PendingStreams::default()).await,
        Err(AcceptError::Line(LineError::Read(_)))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_header_that_never_ends_meets_the_deadline() {
    let (mut host, agent) = pair();
    host.write_all(b"stdio ").unwrap();
    assert!(matches!(admit(agent, &PendingStreams::default()).await, Err(AcceptError::Late)));
}

#[tokio::test]
async fn a_second_stream_of_the_same_kind_is_closed_without_an_answer() {
    let pending = PendingStreams::default();
    for expected in [true, false] {
        let (mut host, agent) = pair();
        host.write_all(b"stdio tok tty\n").unwrap();
        assert_eq!(admit(agent, &pending).await.is_ok(), expected);
        if !expected {
            assert_eq!(host.read(&mut [0]).unwrap(), 0);
        }
    }
    let taken = PendingError::Taken { token: "tok".parse().unwrap(), stream: Stream::Tty };
    assert_eq!(taken.to_string(), "stream Tty of token tok is open already");
}
