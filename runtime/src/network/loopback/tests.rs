use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
};

use bulkhead_sys::loopback;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

/// Runs `work` on a thread in a network namespace of its own; nothing where this process may have none.
fn in_fresh_namespace(work: impl FnOnce(&Namespace) + Send + 'static) {
    let fresh = thread::spawn(|| {
        // SAFETY: the thread leaves the network namespace of the process, on which nobody here relies.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.ok()?;
        Some(Namespace::open(Path::new("/proc/thread-self/ns/net")).unwrap())
    });
    let Some(namespace) = fresh.join().unwrap() else { return };
    match Loopback::check() {
        Ok(()) => work(&namespace),
        // A kernel without it, or one that is locked down.
        Err(error) => eprintln!("not tried here: {}", bulkhead_sys::chain(&error)),
    }
}

fn connect(namespace: &Namespace, address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    visit_network(namespace, || TcpStream::connect(address)).unwrap()
}

fn refused(namespace: &Namespace, address: &str) -> bool {
    connect(namespace, address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn any_port_of_a_loopback_address_comes_to_a_listener_which_knows_the_port() {
    in_fresh_namespace(|namespace| {
        // `lo` comes up when somebody sets it up, also later.
        let taken = Loopback::take(namespace).unwrap();
        visit_network(namespace, loopback::bring_up).unwrap().unwrap();
        for (listener, address) in [(0, "127.0.0.1:80"), (0, "127.0.0.1:65535"), (1, "[::1]:8080")] {
            let mut client = connect(namespace, address).unwrap();
            let (mut accepted, _) = taken.listeners[listener].accept().unwrap();
            assert_eq!(accepted.local_addr().unwrap().to_string(), address);
            accepted.write_all(b"here").unwrap();
            let mut received = [0; 4];
            client.read_exact(&mut received).unwrap();
        }
        // Others of the loopback network are not the guest's.
        assert!(refused(namespace, "127.0.0.11:53"));
    });
}

#[test]
fn nothing_is_left_when_it_is_dropped_and_a_second_one_takes_its_place() {
    in_fresh_namespace(|namespace| {
        visit_network(namespace, loopback::bring_up).unwrap().unwrap();
        for _ in 0..2 {
            let taken = Loopback::take(namespace).unwrap();
            // The first of two holds.
            let second = Loopback::take(namespace).unwrap();
            connect(namespace, "127.0.0.1:80").unwrap();
            taken.listeners[0].accept().unwrap();
            assert_eq!(second.listeners[0].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop((taken, second));
            assert!(refused(namespace, "127.0.0.1:80") && refused(namespace, "[::1]:80"));
        }
    });
}

#[test]
fn without_bpf_a_table_leads_to_the_listeners_and_goes_with_its_socket() {
    in_fresh_namespace(|namespace| {
        visit_network(namespace, loopback::bring_up).unwrap().unwrap();
        for _ in 0..2 {
            let taken = match Loopback::redirected(namespace) {
                Ok(taken) => taken,
                Err(error) => return eprintln!("not tried here: {}", bulkhead_sys::chain(&error)),
            };
            assert_eq!(taken.meant, Meant::Original);
            for (listener, address) in [(0, "127.0.0.1:80"), (0, "127.0.0.1:65535"), (1, "[::1]:8080")] {
                let _client = connect(namespace, address).unwrap();
                let (accepted, from) = taken.listeners[listener].accept().unwrap();
                let own = accepted.local_addr().unwrap();
                assert_eq!(taken.meant.of(&accepted, own).unwrap().to_string(), address);
                assert!(own.port() != from.port());
            }
            // A DNS server of an engine is.
            assert!(refused(namespace, "127.0.0.11:53"));
            drop(taken);
            assert!(refused(namespace, "127.0.0.1:80"));
        }
    });
}
