use std::{
    fs::File,
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
};

use super::*;

fn kind(fd: &impl AsRawFd) -> Option<Kind> {
    Kind::of(fd.as_raw_fd().cast_unsigned())
}

#[test]
fn a_descriptor_is_named_by_what_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    assert_eq!(kind(&listener), Some(Kind::Listening));
    assert_eq!(kind(&stream), Some(Kind::Stream));
    assert_eq!(kind(&UdpSocket::bind("127.0.0.1:0").unwrap()), Some(Kind::Datagram));
    assert_eq!(kind(&pipe), Some(Kind::Pipe));
    assert_eq!(kind(&tempfile::tempfile().unwrap()), Some(Kind::File));
    assert_eq!(kind(&File::open("/").unwrap()), Some(Kind::Directory));
    assert_eq!(kind(&File::open("/dev/null").unwrap()), Some(Kind::Device));
    assert_eq!(Kind::of(1 << 20), None);
}
