use std::os::unix::net::UnixStream;

use super::*;

fn header(token: &str, stream: Stream) -> Header {
    Header { token: token.parse().unwrap(), stream }
}

fn stream() -> OwnedFd {
    UnixStream::pair().unwrap().0.into()
}

const STDOUT: Wanted = Wanted { stdin: false, stdout: true, stderr: false, tty: false };

#[test]
fn a_process_gets_the_streams_of_its_token_once() {
    let (pending, now) = (PendingStreams::default(), Instant::now());
    pending.insert(header("a", Stream::Stdout), stream(), now).unwrap();
    pending.insert(header("b", Stream::Stdin), stream(), now).unwrap();
    let a = "a".parse().unwrap();
    let given = pending.take(&a, STDOUT, now).unwrap();
    assert!(given.stdout.is_some() && given.stdin.is_none());
    let error = pending.take(&a, STDOUT, now).unwrap_err();
    assert_eq!(error, PendingError::Missing { token: a, stream: Stream::Stdout });
}

#[test]
fn a_stream_cannot_be_opened_twice_under_one_token() {
    let (pending, now) = (PendingStreams::default(), Instant::now());
    pending.insert(header("a", Stream::Stderr), stream(), now).unwrap();
    let error = pending.insert(header("a", Stream::Stderr), stream(), now).unwrap_err();
    assert!(matches!(error, PendingError::Taken { stream: Stream::Stderr, .. }));
}

#[test]
fn streams_that_nobody_takes_expire() {
    let (pending, now) = (PendingStreams::default(), Instant::now());
    let (host, ours) = UnixStream::pair().unwrap();
    pending.insert(header("a", Stream::Stdout), ours.into(), now).unwrap();
    pending.expire(now + EXPIRY);
    assert_eq!(std::io::Read::read(&mut &host, &mut [0]).unwrap(), 0, "the stream was closed");
    assert!(pending.take(&"a".parse().unwrap(), STDOUT, now).is_err());
}

#[test]
fn a_full_table_still_takes_streams_of_the_tokens_it_has() {
    let (pending, now) = (PendingStreams::default(), Instant::now());
    // Any descriptor will do, and a thousand sockets are too many for a test.
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for index in 0..TOKENS {
        let insert = pending.insert(header(&format!("t{index}"), Stream::Stdin), null(), now);
        match insert {
            Ok(()) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(pending.insert(header("more", Stream::Stdin), null(), now), Err(PendingError::Full));
    assert_eq!(pending.insert(header("t0", Stream::Stdout), null(), now), Ok(()));
}
