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
    let (table, now) = (Table::default(), Instant::now());
    table.insert(header("a", Stream::Stdout), stream(), now).unwrap();
    table.insert(header("b", Stream::Stdin), stream(), now).unwrap();
    let a = "a".parse().unwrap();
    let given = table.take(&a, STDOUT, now).unwrap();
    assert!(given.stdout.is_some() && given.stdin.is_none());
    let error = table.take(&a, STDOUT, now).unwrap_err();
    assert_eq!(error, TableError::Missing { token: a, stream: Stream::Stdout });
}

#[test]
fn a_stream_cannot_be_opened_twice_under_one_token() {
    let (table, now) = (Table::default(), Instant::now());
    table.insert(header("a", Stream::Stderr), stream(), now).unwrap();
    let error = table.insert(header("a", Stream::Stderr), stream(), now).unwrap_err();
    assert!(matches!(error, TableError::Taken { stream: Stream::Stderr, .. }));
}

#[test]
fn streams_that_nobody_takes_expire() {
    let (table, now) = (Table::default(), Instant::now());
    let (host, ours) = UnixStream::pair().unwrap();
    table.insert(header("a", Stream::Stdout), ours.into(), now).unwrap();
    table.expire(now + EXPIRY);
    assert_eq!(std::io::Read::read(&mut &host, &mut [0]).unwrap(), 0, "the stream was closed");
    assert!(table.take(&"a".parse().unwrap(), STDOUT, now).is_err());
}

#[test]
fn a_full_table_still_takes_streams_of_the_tokens_it_has() {
    let (table, now) = (Table::default(), Instant::now());
    // Any descriptor will do, and a thousand sockets are too many for a test.
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for index in 0..TOKENS {
        let insert = table.insert(header(&format!("t{index}"), Stream::Stdin), null(), now);
        match insert {
            Ok(()) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(table.insert(header("more", Stream::Stdin), null(), now), Err(TableError::Full));
    assert_eq!(table.insert(header("t0", Stream::Stdout), null(), now), Ok(()));
}
