//! The loopback interface: there is one in every network namespace, and it is down at first.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Sets `lo` of this thread's network namespace up, by ioctls (netdevice(7)). The kernel gives it its addresses.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN in the user namespace of the network namespace.
pub fn bring_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    flags(socket.as_fd(), libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has filled the flags member, so it is the one that is initialized.
    let old = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = old | libc::IFF_UP as libc::c_short;
    flags(socket.as_fd(), libc::SIOCSIFFLAGS, &mut request)
}

fn flags(socket: BorrowedFd<'_>, operation: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: both operations read and write one ifreq, which `request` is; the descriptor is open.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), operation as _, &raw mut *request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
