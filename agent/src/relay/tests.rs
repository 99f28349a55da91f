use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use super::*;

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
