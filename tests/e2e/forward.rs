//! Connections to the loopback addresses of a container's network namespace on the host: they are the guest's, as those of an
//! ordinary container are its own. containerd dials them for `kubectl port-forward`.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bulkhead_tests::{
    host::{DEADLINE, TestHost, Wire, in_network, until},
    probe::{
        bytes,
        serve::{RESET, exchange},
    },
};
use rustix::net::sockopt::set_socket_linger;
use serde_json::json;

const LARGE: usize = 1 << 20;

fn dial(namespace: &Path, address: &'static str) -> io::Result<TcpStream> {
    in_network(namespace, move || TcpStream::connect(address))
}

/// What a client hears that says a few bytes and waits.
fn heard(namespace: &Path, address: &'static str, says: &[u8]) -> io::Result<usize> {
    let mut client = dial(namespace, address)?;
    client.set_read_timeout(Some(DEADLINE))?;
    client.write_all(says)?;
    client.read(&mut [0; 64])
}

fn is_reset(heard: &io::Result<usize>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    heard
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), ConnectionRefused | ConnectionReset | BrokenPipe))
}

/// TCP sockets of a network namespace that listen or are connected, of both families.
fn sockets(namespace: &Path) -> Vec<String> {
    in_network(namespace, || {
        let tables = ["tcp", "tcp6"]
            .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap());
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        // proc_net_tcp: the fourth column is the state; 06 is TIME_WAIT, which is nobody's.
        lines.filter(|line| line.split_whitespace().nth(3) != Some("06")).map(str::to_owned).collect()
    })
}

#[test]
fn the_loopback_addresses_of_the_namespace_are_those_of_the_guest() {
    let host = TestHost::new();
    let wire = Wire::connected();
    let namespace: PathBuf = wire.path();
    // Each address has a port that the other one has not.
    let serve = ["probe", "serve", "127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081", "[::1]:8082"];
    let bundle = host.bundle().set("/linux/namespaces/1/path", json!(namespace.to_str().unwrap()));
    let container = host.create("forward", &bundle.args(serve));
    // The program does not run yet: nobody listens.
    assert!(is_reset(&heard(&namespace, "127.0.0.1:8080", b"early")));
    container.start();
    container.until_stdout("serving");

    // Whole, in both directions at once, and the end of one leaves the other open. Who dials `localhost` tries 127.0.0.1 first.
    for address in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8082", "[::1]:8081"] {
        let client = dial(&namespace, address).unwrap();
        assert!(exchange(&client, &bytes(7, LARGE)).unwrap(), "{address}");
    }
    thread::scope(|scope| {
        for n in 0..12 {
            let client = dial(&namespace, "127.0.0.1:8080").unwrap();
            scope.spawn(move || assert!(exchange(&client, &bytes(n, LARGE / 8)).unwrap(), "client {n}"));
        }
    });
    // What the guest refuses or resets, the client hears as that, and not as an end.
    for address in ["127.0.0.1:8079", "[::1]:8079"] {
        assert!(is_reset(&heard(&namespace, address, b"anybody?")), "{address}");
    }
    let reset = heard(&namespace, "127.0.0.1:8080", RESET);
    assert_eq!(reset.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // The same the other way.
    assert!(!container.stdout().contains("ConnectionReset"));
    let mut client = dial(&namespace, "127.0.0.1:8080").unwrap();
    client.write_all(b"half a sen").unwrap();
    client.read_exact(&mut [0; 10]).unwrap();
    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    container.until_stdout("ConnectionReset");
    // Other addresses of the loopback network, and the interface's, are none of the guest's loopback.
    for address in ["127.0.0.2:8080", "10.77.0.2:8080"] {
        assert_eq!(
            dial(&namespace, address).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused,
            "{address}"
        );
    }
    // What a container says to the agent's ports is not heard.
    let ports = "for cid in 1 2 3; do for port in 1025 1026; do probe vsock $cid $port; done; done";
    let said = container.exec(["sh", "-c", ports]).success();
    assert!(said.lines().count() == 6 && said.lines().all(|line| line != "ok"), "{said}");

    // One connection is open when the container ends.
    let mut open = dial(&namespace, "[::1]:8080").unwrap();
    open.write_all(b"open").unwrap();
    open.read_exact(&mut [0; 4]).unwrap();
    container.delete_force();
    // A program that is killed ends its connections; a sandbox that ends resets them.
    let ended = open.read(&mut [0]);
    assert!(matches!(ended, Ok(0)) || is_reset(&ended), "{ended:?}");
    drop(open);
    until("all sockets are gone", DEADLINE, || sockets(&namespace).is_empty().then_some(()));
    let refused = dial(&namespace, "127.0.0.1:8080").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(wire.traces(), [""; 0]);
}
