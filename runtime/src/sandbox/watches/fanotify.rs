//! fanotify(7), as far as it is needed here: a group that reports directories, names and files by their handles.
//!
//! A mark is one of an inode: it holds neither a mount nor a path, so it keeps nobody from unmounting a volume.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
};

use rustix::io::Errno;

/// The queue lost events (FAN_Q_OVERFLOW).
pub(super) const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;
/// A rename within or between marked directories, in one event; since Linux 5.17.
pub(super) const RENAME: u64 = 0x1000_0000;
/// FAN_EVENT_INFO_TYPE_* of linux/fanotify.h.
const INFO_FILE: u8 = 1;
const INFO_NAME: u8 = 2;
const INFO_DIRECTORY: u8 = 3;
const INFO_OLD_NAME: u8 = 10;
const INFO_NEW_NAME: u8 = 12;
/// MAX_HANDLE_SZ of fcntl.h.
const HANDLE: usize = 128;
/// For a handle that only names an inode, which more filesystems have; since Linux 6.6.
const AT_HANDLE_FID: libc::c_int = 0x200;

/// An inode, as events name it: its filesystem, and the kind and bytes of its handle there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    filesystem: [u8; 8],
    kind: i32,
    handle: Vec<u8>,
}

#[repr(C)]
struct RawHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    handle: [u8; HANDLE],
}

impl FileId {
    /// Of an open file, which may be O_PATH.
    ///
    /// # Errors
    /// EOPNOTSUPP for a filesystem without handles.
    pub(super) fn of(file: &OwnedFd) -> io::Result<Self> {
        let raw = match Self::handle(file, libc::AT_EMPTY_PATH | AT_HANDLE_FID) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Self::handle(file, libc::AT_EMPTY_PATH)?
            }
            raw => raw?,
        };
        let handle = raw.handle.get(..raw.bytes as usize).unwrap_or(&raw.handle).to_vec();
        Ok(Self { filesystem: filesystem(file)?, kind: raw.kind, handle })
    }

    fn handle(file: &OwnedFd, flags: libc::c_int) -> io::Result<RawHandle> {
        let mut raw = RawHandle { bytes: HANDLE as libc::c_uint, kind: 0, handle: [0; HANDLE] };
        let mut mount: libc::c_int = 0;
        // SAFETY: `raw` is a file_handle with as many bytes of room as it says, the name is an empty C string, and `mount`
        // takes the one int that is written; all outlive the call.
        let named = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                file.as_raw_fd(),
                c"".as_ptr(),
                &raw mut raw,
                &raw mut mount,
                flags,
            )
        };
        if named == 0 { Ok(raw) } else { Err(io::Error::last_os_error()) }
    }
}

fn filesystem(file: &OwnedFd) -> io::Result<[u8; 8]> {
    const { assert!(size_of::<libc::fsid_t>() == 8) };
    let found = rustix::fs::fstatfs(file)?;
    // SAFETY: an fsid_t is two ints (its size is checked above), so all bytes of it are initialised.
    Ok(unsafe { std::mem::transmute_copy(&found.f_fsid) })
}

/// What a group tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// FAN_*; the bits of inotify's events are the same.
    pub(super) mask: u64,
    /// Of the process that did it, in this process's pid namespace; 0 when it is in none below.
    pub(super) pid: i32,
    pub(super) places: Vec<Place>,
}

/// One inode that an event concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Something of this name in a directory.
    Named {
        directory: FileId,
        name: Vec<u8>,
    },
    /// The old and the new place of a rename.
    From {
        directory: FileId,
        name: Vec<u8>,
    },
    To {
        directory: FileId,
        name: Vec<u8>,
    },
    /// The file or directory itself.
    Itself(FileId),
}

/// A queue of events, and the marks that fill it.
#[derive(Debug)]
pub(super) struct Group(OwnedFd);

impl AsRawFd for Group {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Group {
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, ENOSYS for a kernel without fanotify, EMFILE.
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_CLASS_NOTIF
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_REPORT_FID
            | libc::FAN_REPORT_DIR_FID
            | libc::FAN_REPORT_NAME;
        let files = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE) as libc::c_uint;
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::fanotify_init(flags, files) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds events to the mark of an open file, which may be O_PATH.
    ///
    /// # Errors
    /// EOPNOTSUPP, ENODEV, EXDEV for a filesystem whose events cannot name files; EINVAL for an event that this kernel
    /// does not know.
    pub(super) fn mark(&self, file: &OwnedFd, events: u64) -> io::Result<()> {
        self.change(libc::FAN_MARK_ADD, file, events)
    }

    /// # Errors
    /// ENOENT without a mark.
    pub(super) fn unmark(&self, file: &OwnedFd, events: u64) -> io::Result<()> {
        self.change(libc::FAN_MARK_REMOVE, file, events)
    }

    /// Removes all marks.
    pub(super) fn unmark_all(&self) {
        // SAFETY: no pointer is passed that is looked at.
        unsafe {
            libc::fanotify_mark(self.as_raw_fd(), libc::FAN_MARK_FLUSH, 0, libc::AT_FDCWD, std::ptr::null())
        };
    }

    fn change(&self, change: libc::c_uint, file: &OwnedFd, events: u64) -> io::Result<()> {
        // fanotify_mark(2) takes no O_PATH descriptor by itself.
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        // SAFETY: `path` is a C string that outlives the call.
        let changed =
            unsafe { libc::fanotify_mark(self.as_raw_fd(), change, events, libc::AT_FDCWD, path.as_ptr()) };
        if changed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whole events, as many as there are and fit.
    ///
    /// # Errors
    /// WouldBlock without any.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Err(Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }
}

/// The events of a buffer; what is no event ends them.
pub(super) fn parse(mut buffer: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((event, rest)) = one(buffer) {
        events.push(event);
        buffer = rest;
    }
    events
}

/// struct fanotify_event_metadata and its info records.
fn one(buffer: &[u8]) -> Option<(Event, &[u8])> {
    let len = u32_at(buffer, 0)? as usize;
    let metadata = usize::from(u16::from_ne_bytes(buffer.get(6..8)?.try_into().ok()?));
    let mask = u64::from_ne_bytes(buffer.get(8..16)?.try_into().ok()?);
    let pid = u32_at(buffer, 20)?.cast_signed();
    let mut records = buffer.get(metadata.max(24)..len)?;
    let mut places = Vec::new();
    while let Some((kind, record, rest)) = record(records) {
        places.extend(place(kind, record));
        records = rest;
    }
    Some((Event { mask, pid, places }, &buffer[len..]))
}

/// struct fanotify_event_info_header.
fn record(records: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let len = usize::from(u16::from_ne_bytes(records.get(2..4)?.try_into().ok()?));
    let body = records.get(4..len)?;
    Some((records[0], body, &records[len..]))
}

/// struct fanotify_event_info_fid, with a name behind its handle.
fn place(kind: u8, body: &[u8]) -> Option<Place> {
    let filesystem = body.get(..8)?.try_into().ok()?;
    let bytes = u32_at(body, 8)? as usize;
    let handle_kind = u32_at(body, 12)?.cast_signed();
    let handle = body.get(16..16usize.checked_add(bytes)?)?.to_vec();
    let id = FileId { filesystem, kind: handle_kind, handle };
    let name = || body[16 + bytes..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    match kind {
        INFO_NAME => match name() {
            // An event of the directory itself.
            name if name == b"." => Some(Place::Itself(id)),
            name => Some(Place::Named { directory: id, name }),
        },
        INFO_OLD_NAME => Some(Place::From { directory: id, name: name() }),
        INFO_NEW_NAME => Some(Place::To { directory: id, name: name() }),
        INFO_FILE | INFO_DIRECTORY => Some(Place::Itself(id)),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests;
