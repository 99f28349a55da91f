use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
};

use bulkhead_sys::{loopback, namespace::visit_network};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

const HEADER: &str = "loopback web v4 80\n";

/// A VMM with an agent behind it, for one stream after the other.
struct Guest {
    dir: tempfile::TempDir,
}

impl Guest {
    /// `serve` has the stream, and both lines of the server have been read from it.
    fn new(serve: impl Fn(Vec<String>, UnixStream) + Send + 'static) -> Self {
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

    fn says(answer: &'static [u8]) -> Self {
        Self::new(move |_, mut stream| drop(stream.write_all(answer)))
    }

    fn door(&self) -> Door {
        Door::new(File::open(self.dir.path()).unwrap().into(), "vsock.sock")
    }
}

async fn asked(guest: &Guest) -> Result<Endpoint, ForwardError> {
    connect(&guest.door(), &HEADER.parse().unwrap()).await
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
    assert!(matches!(asked(&guest).await, Err(ForwardError::Take(_))));
}

#[test]
fn the_header_says_what_the_client_has_dialled() {
    let of = |meant: &str| header("web".parse().unwrap(), meant.parse().unwrap()).unwrap().to_string();
    assert_eq!(of("127.0.0.1:80"), HEADER);
    assert_eq!(of("[::1]:8080"), "loopback web v6 8080\n");
}

/// A network namespace with loopback, where this process may have one and the kernel can do it.
fn fresh_namespace() -> Option<Namespace> {
    Loopback::check().ok()?;
    let fresh = thread::spawn(|| {
        // SAFETY: the thread leaves the network namespace of the process, on which nobody here relies.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.ok()?;
        loopback::bring_up().unwrap();
        Some(Namespace::open(Path::new("/proc/thread-self/ns/net")).unwrap())
    });
    fresh.join().unwrap()
}

/// What a client in the namespace gets that sends three bytes and its end.
async fn dialled(namespace: &Namespace, address: &'static str) -> io::Result<Vec<u8>> {
    let namespace = namespace.clone();
    let dial = move || {
        let mut client = std::net::TcpStream::connect(address)?;
        client.write_all(b"abc")?;
        client.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).map(|_| answer)
    };
    spawn_blocking(move || visit_network(&namespace, dial).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_client_in_the_namespace_reaches_the_guest_or_is_reset() {
    let Some(namespace) = fresh_namespace() else { return };
    let guest = Guest::new(|lines, mut stream| {
        if lines[1] != "loopback web v6 80" {
            return;
        }
        stream.write_all(b"OK 1\nok\n").unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received.extend(b"def");
        stream.write_all(&received).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The VMM closes when both directions have ended.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    let forward = Forward::new(guest.door(), Some("web".parse().unwrap()));
    // The second time is none.
    forward.listen(&namespace).await;
    forward.listen(&namespace).await;
    for _ in 0..3 {
        assert_eq!(dialled(&namespace, "[::1]:80").await.unwrap(), b"abcdef");
        let reset = dialled(&namespace, "127.0.0.1:80").await.unwrap_err();
        assert!(
            matches!(reset.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{reset}"
        );
    }
    // Every connection gives its place back.
    let all = forward.places.acquire_many(limits::RELAYS as u32).await;
    assert!(all.is_ok());
}

#[tokio::test]
async fn beyond_the_cap_clients_are_reset() {
    let Some(namespace) = fresh_namespace() else { return };
    let guest = Guest::says(b"OK 1\nok\n");
    let forward = Forward::new(guest.door(), Some("web".parse().unwrap()));
    forward.listen(&namespace).await;
    let _all = forward.places.clone().acquire_many_owned(limits::RELAYS as u32).await.unwrap();
    assert!(dialled(&namespace, "127.0.0.1:80").await.is_err());
}
