//! The few calls of AF_VSOCK that the guest needs.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use bulkhead_protocol::ports::HOST_CID;

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    match unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a new descriptor that nobody else has.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    libc::sockaddr_vm {
        svm_family: libc::AF_VSOCK as libc::sa_family_t,
        svm_reserved1: 0,
        svm_port: port,
        svm_cid: cid,
        svm_zero: [0; 4],
    }
}

fn call(
    socket: &OwnedFd,
    address: &libc::sockaddr_vm,
    function: unsafe extern "C" fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address lives across the call and has the length given; the function only reads it.
    let result = unsafe { function(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn connect(port: u32) -> io::Result<File> {
    let socket = socket()?;
    call(&socket, &address(HOST_CID as u32, port), libc::connect)?;
    Ok(socket.into())
}

pub(crate) fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    call(&socket, &address(libc::VMADDR_CID_ANY, port), libc::bind)?;
    // SAFETY: no pointers.
    let result = unsafe { libc::listen(socket.as_raw_fd(), 128) };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn accept(listener: &OwnedFd) -> io::Result<File> {
    // SAFETY: null pointers say that the peer's address is not wanted; the result is checked before it is owned.
    match unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a new descriptor that nobody else has.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}
