use std::{fs::File, io::Write};

use super::*;
use crate::vmm::{Request, Slot};

#[test]
fn a_message_arrives_with_its_descriptors() {
    let (a, b) = PacketSocket::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    a.send(&Request::Unplug { slot: Slot(3) }, &[file.as_fd(), file.as_fd()]).unwrap();
    let (message, fds) = b.receive::<Request>().unwrap();
    assert_eq!(message, Request::Unplug { slot: Slot(3) });
    assert_eq!(fds.len(), 2);
    File::from(fds.into_iter().next().unwrap()).write_all(b"").unwrap();
}

#[test]
fn a_closed_peer_is_told_apart_from_a_bad_packet() {
    let (a, b) = PacketSocket::pair().unwrap();
    a.send(&"no request", &[]).unwrap();
    assert!(matches!(b.receive::<Request>(), Err(PacketError::Message { .. })));
    drop(a);
    assert!(matches!(b.receive::<Request>(), Err(PacketError::Closed)));
}

#[test]
fn an_oversized_message_is_not_sent() {
    let (a, _b) = PacketSocket::pair().unwrap();
    let long = "x".repeat(limits::PACKET);
    assert!(matches!(a.send(&long, &[]), Err(PacketError::TooLong { .. })));
}
