//! Addresses and flags of network interfaces, by the classic ioctls: two calls do not need netlink or a program.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings an interface up.
///
/// # Errors
/// No such interface, or not allowed.
pub(crate) fn up(name: &str) -> io::Result<()> {
    let socket = control()?;
    let mut request = request(name)?;
    call(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    call(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Gives an interface its IPv4 address and prefix length.
///
/// # Errors
/// No such interface, or not allowed.
pub(crate) fn address(name: &str, address: [u8; 4], prefix: u32) -> io::Result<()> {
    let socket = control()?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_addr = ipv4(address);
    call(&socket, libc::SIOCSIFADDR, &mut request)?;
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    request.ifr_ifru.ifru_netmask = ipv4(mask.to_be_bytes());
    call(&socket, libc::SIOCSIFNETMASK, &mut request)
}

fn control() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn ipv4(address: [u8; 4]) -> libc::sockaddr {
    // SAFETY: sockaddr is plain data, for which all zeroes is a valid value.
    let mut socket: libc::sockaddr = unsafe { std::mem::zeroed() };
    socket.sa_family = libc::AF_INET as libc::sa_family_t;
    // sockaddr_in: two bytes of port, then the address in network order.
    for (to, from) in socket.sa_data[2..6].iter_mut().zip(address) {
        *to = from.cast_signed();
    }
    socket
}

fn call(socket: &OwnedFd, operation: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: all operations used here take a pointer to an ifreq, which `request` is, valid for the whole call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), operation, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
