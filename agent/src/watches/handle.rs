//! File handles of FUSE inodes: name_to_handle_at(2), open_by_handle_at(2).

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::fdinfo::{HANDLE_BYTES, HANDLE_KIND, Handle};

/// struct file_handle of fcntl.h with room for a handle of FUSE. Linux 6.12 wants no alignment beyond that of an int.
#[repr(C)]
struct Raw {
    bytes: libc::c_uint,
    kind: libc::c_int,
    handle: [u8; HANDLE_BYTES],
}

const _: () = assert!(size_of::<Raw>() == 8 + HANDLE_BYTES);

/// The handle of the inode behind a descriptor, which may be O_PATH. Asks nothing of the file server.
///
/// # Errors
/// Those of name_to_handle_at(2); EOVERFLOW and InvalidData for an inode that is none of FUSE.
pub(super) fn of(file: impl AsFd) -> io::Result<Handle> {
    let mut raw = Raw { bytes: HANDLE_BYTES as libc::c_uint, kind: 0, handle: [0; HANDLE_BYTES] };
    let mut mount = 0;
    // SAFETY: `raw` is a file_handle with as many bytes of room as it says, the name is an empty C string, and `mount` takes
    // the one int that is written; all outlive the call.
    let named = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            &raw mut raw,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if named != 0 {
        return Err(io::Error::last_os_error());
    }
    if raw.kind != HANDLE_KIND || raw.bytes as usize != HANDLE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Handle(raw.handle))
}

/// Opens the inode as O_PATH, which tells no watcher, in the mount of `place`, which must not be O_PATH.
///
/// # Errors
/// Those of open_by_handle_at(2); ESTALE for an inode that this filesystem has not in memory.
pub(super) fn open(place: impl AsFd, handle: Handle) -> io::Result<OwnedFd> {
    let mut raw = Raw { bytes: HANDLE_BYTES as libc::c_uint, kind: HANDLE_KIND, handle: handle.0 };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `raw` is a file_handle with as many bytes as it says, and outlives the call.
    let opened =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, place.as_fd().as_raw_fd(), &raw mut raw, flags) };
    let number = i32::try_from(opened).unwrap_or(-1);
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
