use std::{
    io::{Read as _, Write as _},
    path::Path,
    thread,
};

use bulkhead_sys::{loopback, namespace::visit_network};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{super::streams::tests::Guest, *};

#[test]
fn the_header_says_what_the_client_has_dialled() {
    let of = |meant: &str| header("web".parse().unwrap(), meant.parse().unwrap()).unwrap().to_string();
    assert_eq!(of("127.0.0.1:80"), "loopback web v4 80\n");
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
    let forward = Forward::new(guest.streams(), Some("web".parse().unwrap()));
    // The second time is none.
    forward.listen(&namespace).await;
    forward.listen(&namespace).await;
    for _ in 0..3 {
        assert_eq!(dialled(&namespace, "[::1]:80").await.unwrap(), b"abcdef");
        let reset = dialled(&namespace, "127.0.0.1:80").await.unwrap_err();
        // By which call the client learns of it depends on when it comes: by shutdown(2), it is "not connected".
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::NotConnected];
        assert!(kinds.contains(&reset.kind()), "{reset}");
    }
    // Every connection gives its place back.
    let all = forward.places.acquire_many(limits::RELAYS as u32).await;
    assert!(all.is_ok());
}

#[tokio::test]
async fn beyond_the_cap_clients_are_reset() {
    let Some(namespace) = fresh_namespace() else { return };
    let guest = Guest::says(b"OK 1\nok\n");
    let forward = Forward::new(guest.streams(), Some("web".parse().unwrap()));
    forward.listen(&namespace).await;
    let _all = forward.places.clone().acquire_many_owned(limits::RELAYS as u32).await.unwrap();
    assert!(dialled(&namespace, "127.0.0.1:80").await.is_err());
}
