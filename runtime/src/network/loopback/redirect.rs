//! The same without BPF, which the kernel lets the machine's root alone have: a table of nftables that sends the connections to a
//! listener. Root of a user namespace may have one in a network namespace that belongs to that.
//!
//!   connect 10.0.2.100:8080 ─▶ local, so it leaves by `lo` ─▶ nat hook "output": redirect ─▶ our listener on 127.0.0.1
//!
//! A rootless engine serves a published port by a process that connects in the namespace to the container's own address there. So
//! all addresses of the namespace are taken, but for those of the loopback network that are not 127.0.0.1: engines have a DNS server
//! there. The table belongs to a socket (NFT_TABLE_F_OWNER, since Linux 5.12): nobody else changes it, and it ends with the socket.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
        sockopt,
    },
};

/// For the kernel's answer, which may have to load a module before.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer: an error repeats what it is about.
const ANSWER_MAX: usize = 16 << 10;

const TABLE: &str = "bulkhead";
const CHAIN: &str = "output";
/// linux/netlink.h
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;
/// linux/netfilter/nfnetlink.h and nf_tables.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const FAMILY_INET: u8 = 1;
const TABLE_OWNER: u32 = 2;
const HOOK_LOCAL_OUT: u32 = 3;
const PRIORITY_DESTINATION: i32 = -100;
const META_OIF: u32 = 5;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const REGISTER: u32 = 1;
/// Of `lo`, in every network namespace.
const LOOPBACK_INDEX: u32 = 1;
/// SO_ORIGINAL_DST of linux/netfilter_ipv4.h, and its twin for IPv6.
const ORIGINAL_DESTINATION: libc::c_int = 80;
/// Of the destination in an IPv4 header.
const DESTINATION: u32 = 16;

/// Has connections to the namespace of this thread's own addresses come to these listeners. It ends with the socket.
///
/// # Errors
/// What the kernel refuses: EPERM without CAP_NET_ADMIN in the namespace, ENOENT without nftables.
pub(super) fn take(four: &TcpListener, six: Option<&TcpListener>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER))?;
    let mut batch = Batch::default();
    let table = [text(1, TABLE), number(2, TABLE_OWNER)].concat();
    batch.add(NEW_TABLE, CREATE | EXCLUSIVE, &table);
    let hook = [number(1, HOOK_LOCAL_OUT), attribute(2, &PRIORITY_DESTINATION.to_be_bytes())].concat();
    let chain = [text(1, TABLE), text(3, CHAIN), nested(4, &hook), text(7, "nat")].concat();
    batch.add(NEW_CHAIN, CREATE, &chain);
    for rule in rules(port(four)?, six.map(port).transpose()?) {
        let rule = [text(1, TABLE), text(2, CHAIN), nested(4, &rule)].concat();
        batch.add(NEW_RULE, CREATE | APPEND, &rule);
    }
    send(&socket, &batch.done(), SendFlags::empty())?;
    answer(&socket)?;
    Ok(socket)
}

fn port(listener: &TcpListener) -> io::Result<u16> {
    Ok(listener.local_addr()?.port())
}

/// The expressions of each rule.
fn rules(four: u16, six: Option<u16>) -> Vec<Vec<u8>> {
    let to_itself = |family: libc::c_int| {
        let equals = |key, value: &[u8]| [meta(key), compare(EQUAL, value)].concat();
        [
            equals(META_NFPROTO, &[family as u8]),
            equals(META_L4PROTO, &[libc::IPPROTO_TCP as u8]),
            equals(META_OIF, &LOOPBACK_INDEX.to_ne_bytes()),
        ]
        .concat()
    };
    let [first, ..] = Ipv4Addr::LOCALHOST.octets();
    let v4 = to_itself(libc::NFPROTO_IPV4);
    let mut rules = vec![
        [v4.clone(), destination(4), compare(EQUAL, &Ipv4Addr::LOCALHOST.octets()), redirect(four)].concat(),
        [v4, destination(1), compare(NOT_EQUAL, &[first]), redirect(four)].concat(),
    ];
    rules.extend(six.map(|port| [to_itself(libc::NFPROTO_IPV6), redirect(port)].concat()));
    rules
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)].concat())
}

fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
    let data = nested(3, &attribute(1, value));
    expression("cmp", &[number(1, REGISTER), number(2, operation), data].concat())
}

/// The first bytes of an IPv4 destination.
fn destination(bytes: u32) -> Vec<u8> {
    let place = [number(2, NETWORK_HEADER), number(3, DESTINATION), number(4, bytes)].concat();
    expression("payload", &[number(1, REGISTER), place].concat())
}

fn redirect(port: u16) -> Vec<u8> {
    let data = nested(2, &attribute(1, &port.to_be_bytes()));
    let load = expression("immediate", &[number(1, REGISTER), data].concat());
    [load, expression("redir", &number(1, REGISTER))].concat()
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)].concat())
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

/// Length, kind and payload, up to a multiple of 4. All that is put in here is far shorter than 64 KiB.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), payload].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Messages that the kernel carries out whole or not at all.
#[derive(Default)]
struct Batch {
    messages: Vec<(u16, u16, Vec<u8>)>,
}

impl Batch {
    fn add(&mut self, kind: u16, flags: u16, attributes: &[u8]) {
        let head = [FAMILY_INET, 0, 0, 0];
        self.messages.push((kind, flags, [&head[..], attributes].concat()));
    }

    /// The last message alone is answered, unless one fails.
    fn done(self) -> Vec<u8> {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let edge = |kind| (kind, 0, vec![0, 0, high, low]);
        let count = self.messages.len();
        let asked = self.messages.into_iter().enumerate().map(|(index, (kind, flags, body))| {
            (kind, if index + 1 == count { flags | ACK } else { flags }, body)
        });
        let all = [edge(BATCH_BEGIN)].into_iter().chain(asked).chain([edge(BATCH_END)]);
        let mut bytes = Vec::new();
        for (sequence, (kind, flags, body)) in (1_u32..).zip(all) {
            let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend((flags | REQUEST).to_ne_bytes());
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(body);
        }
        bytes
    }
}

/// What the kernel says of the batch.
fn answer(socket: &OwnedFd) -> io::Result<()> {
    let mut bytes = vec![0; ANSWER_MAX];
    loop {
        let (length, _) = recv(socket, &mut bytes[..], RecvFlags::empty())?;
        let said = bytes.get(..length).unwrap_or_default();
        let kind = said.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        let code = said.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
        match (kind, code.map(i32::from_ne_bytes)) {
            (Some(NLMSG_ERROR), Some(0)) => return Ok(()),
            (Some(NLMSG_ERROR), Some(code)) => {
                return Err(Errno::from_raw_os_error(code.saturating_neg()).into());
            }
            _ => {}
        }
    }
}

/// Where a connection that was redirected was to go.
///
/// # Errors
/// One that was not.
pub(super) fn original(client: impl AsFd, local: SocketAddr) -> io::Result<SocketAddr> {
    match local {
        SocketAddr::V4(_) => {
            // SAFETY: an address is plain data for which all bytes are valid.
            let address: libc::sockaddr_in = unsafe { destination_of(client, libc::SOL_IP) }?;
            let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
            Ok(SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into())
        }
        SocketAddr::V6(_) => {
            // SAFETY: as above.
            let address: libc::sockaddr_in6 = unsafe { destination_of(client, libc::SOL_IPV6) }?;
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(ip, u16::from_be(address.sin6_port), 0, 0).into())
        }
    }
}

/// # Safety
/// `T` is plain data for which all bytes are valid.
unsafe fn destination_of<T>(client: impl AsFd, level: libc::c_int) -> io::Result<T> {
    // SAFETY: the caller's duty.
    let mut address: T = unsafe { std::mem::zeroed() };
    let mut length = size_of::<T>() as libc::socklen_t;
    let fd = client.as_fd().as_raw_fd();
    let (value, length) = ((&raw mut address).cast(), &raw mut length);
    // SAFETY: the kernel writes at most `length` bytes into `address`; both outlive the call, and the descriptor is borrowed.
    let done = unsafe { libc::getsockopt(fd, level, ORIGINAL_DESTINATION, value, length) };
    if done == 0 { Ok(address) } else { Err(io::Error::last_os_error()) }
}
