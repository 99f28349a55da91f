//! What a program does with files that shows whose kernel answers: locks, ACLs, files without a name.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustix::fs::{AtFlags, CWD, FlockOperation, XattrFlags, flock, linkat, setxattr};

const ACCESS_ACL: &str = "system.posix_acl_access";

/// Locks a whole file exclusively, by `kind` `flock` or `posix`; it is made if it is not there.
///
/// # Errors
/// Those of open(2), and of the lock: EAGAIN when another has it and `wait` is false, EINTR when a signal ends the wait.
pub fn lock(kind: &str, path: &str, wait: bool) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    if kind == "flock" {
        let operation =
            if wait { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
        flock(&file, operation)?;
        return Ok(file);
    }
    // SAFETY: all zeros is a valid flock; l_whence is SEEK_SET then, and the range is the whole file.
    let mut all: libc::flock = unsafe { std::mem::zeroed() };
    all.l_type = libc::F_WRLCK as libc::c_short;
    let command = if wait { libc::F_SETLKW } else { libc::F_SETLK };
    // SAFETY: the descriptor is open, and both commands read a flock.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const all) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

extern "C" fn on_signal(_: libc::c_int) {}

/// Makes USR1 end what waits.
///
/// # Errors
/// The kernel refuses the handler.
pub fn let_signals_interrupt() -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    Ok(())
}

/// An ACL by which `user` may read and write a file, beside its owner (linux/posix_acl_xattr.h: version 2, then tag,
/// permissions and id of each entry).
pub fn acl(user: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 6, user), (4, 0, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let entries = entries.into_iter().flat_map(|(tag, permissions, id)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

/// # Errors
/// Those of setxattr(2).
pub fn set_acl(path: impl AsRef<Path>, user: u32) -> io::Result<()> {
    setxattr(path.as_ref(), ACCESS_ACL, &acl(user), XattrFlags::empty())?;
    Ok(())
}

/// Makes a file without a name in a directory, writes to it, and gives it a name.
///
/// # Errors
/// Those of the calls; EIO when the file is not what it should be.
pub fn unnamed(directory: &str) -> io::Result<()> {
    let mut file =
        File::options().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(directory)?;
    file.write_all(b"hello")?;
    let linked = Path::new(directory).join("linked");
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, descriptor, CWD, &linked, AtFlags::SYMLINK_FOLLOW)?;
    let meta = fs::metadata(&linked)?;
    let whole = (meta.len(), meta.nlink(), meta.ino()) == (5, 1, file.metadata()?.ino());
    if whole && fs::read(&linked)? == b"hello" {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}
