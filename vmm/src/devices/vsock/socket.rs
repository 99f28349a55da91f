//! Socket calls that `std` has no safe form for: guest memory straight into and out of a host socket.
//!
//! All are non-blocking whatever the descriptor's own mode is (a descriptor that was passed in may share its flags
//! with the sender), none raises SIGPIPE, and none takes descriptors that the peer may send along.

use std::{
    io,
    mem::zeroed,
    os::fd::{AsRawFd, BorrowedFd},
};

use vm_memory::VolatileSlice;

/// Slices per call; what is left is for the next call.
const MAX_VECTORS: usize = 32;

/// Sends from guest memory; returns how much the socket took.
pub(super) fn send(socket: BorrowedFd<'_>, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    transfer(socket, slices, |fd, message| {
        // SAFETY: `message` names `transfer`'s vectors, which name guest memory that stays mapped while the slices
        // live; the kernel only reads it, and the guest changing it meanwhile changes only what is sent.
        unsafe { libc::sendmsg(fd, message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    })
}

/// Receives into guest memory; 0 is the end of the stream.
pub(super) fn receive(socket: BorrowedFd<'_>, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    transfer(socket, slices, |fd, message| {
        // SAFETY: as for sending; the kernel writes at most the lengths given, all of it in guest memory, of which
        // this process holds no references. There is no control buffer, so no descriptor is installed.
        unsafe { libc::recvmsg(fd, message, libc::MSG_DONTWAIT) }
    })
}

fn transfer(
    socket: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_>],
    call: impl Fn(i32, *mut libc::msghdr) -> isize,
) -> io::Result<usize> {
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_VECTORS];
    let mut count = 0;
    for (vector, slice) in vectors.iter_mut().zip(slices) {
        // The guard pins nothing for an ordinary mapping, so the address outlives it.
        vector.iov_base = slice.ptr_guard_mut().as_ptr().cast();
        vector.iov_len = slice.len();
        count += 1;
    }
    // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control buffer.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = count;
    loop {
        let done = call(socket.as_raw_fd(), &raw mut message);
        match usize::try_from(done) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
