use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    thread,
};

use super::*;

const HEADER: &str = "loopback web v4 80\n";

/// A VMM with an agent behind it, for one stream after the other.
pub(in crate::sandbox) struct Guest {
    dir: tempfile::TempDir,
}

impl Guest {
    /// `serve` has the stream, and both lines of the server have been read from it.
    pub(in crate::sandbox) fn new(serve: impl Fn(Vec<String>, UnixStream) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("vsock.sock")).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut lines = BufReader::with_capacity(1, stream.try_clone().unwrap()).lines();
                let lines = vec![lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()];
                serve(lines, stream);
            }
        });
        Self { dir }
    }

    pub(in crate::sandbox) fn says(answer: &'static [u8]) -> Self {
        Self::new(move |_, mut stream| drop(stream.write_all(answer)))
    }

    pub(in crate::sandbox) fn streams(&self) -> Streams {
        Streams::new(Door::new(File::open(self.dir.path()).unwrap().into(), "vsock.sock"))
    }
}

async fn asked(guest: &Guest) -> Result<Endpoint, StreamError> {
    guest.streams().open(&HEADER.parse().unwrap()).await
}

#[tokio::test]
async fn the_guest_is_asked_for_the_port_and_what_follows_its_answer_is_the_programs() {
    let guest = Guest::new(|lines, mut stream| {
        assert_eq!(lines, ["CONNECT 1026", HEADER.trim_end()]);
        stream.write_all(b"OK 1073741824\nok\nfirst bytes").unwrap();
    });
    let stream = asked(&guest).await.unwrap();
    let mut bytes = [0; 64];
    let count = stream.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..count], b"first bytes");
}

#[tokio::test]
async fn whatever_else_a_guest_says_is_a_refusal() {
    for answer in
        [&b""[..], b"OK 1\n", b"OK 1\nno\n", b"OK 1\nokay\n", b"no\nok\n", b"OK \xff\nok\n", &[b'O'; 600]]
    {
        assert!(asked(&Guest::says(answer)).await.is_err(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_vmm_that_is_gone_is_a_refusal() {
    let guest = Guest::says(b"");
    std::fs::remove_file(guest.dir.path().join("vsock.sock")).unwrap();
    assert!(matches!(asked(&guest).await, Err(StreamError::Open(_))));
}

#[tokio::test(start_paused = true)]
async fn few_wait_for_a_silent_guest_at_once_and_none_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let vmm = UnixListener::bind(dir.path().join("vsock.sock")).unwrap();
    vmm.set_nonblocking(true).unwrap();
    let streams = Streams::new(Door::new(File::open(dir.path()).unwrap().into(), "vsock.sock"));
    let opened: Vec<_> = (0..OPENING * 2)
        .map(|_| {
            let streams = streams.clone();
            tokio::spawn(async move { streams.open(&HEADER.parse().unwrap()).await })
        })
        .collect();
    // The clock stands still until nobody can go on.
    tokio::time::sleep(limits::RELAY_CONNECT / 2).await;
    let waiting: Vec<_> = std::iter::from_fn(|| vmm.accept().ok()).collect();
    assert_eq!(waiting.len(), OPENING);
    for stream in opened {
        assert!(matches!(stream.await.unwrap(), Err(StreamError::Late)));
    }
}
