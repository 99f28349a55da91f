//! A lock as the guest asks for it, checked once.

use rustix::io::Errno;
use virtiofsd::fuse::{FileLock, LK_FLOCK, LkIn};

/// The end of a file, however far that is (OFFSET_MAX of Linux).
const END: u64 = i64::MAX as u64;

/// Which of the two sorts of locks Linux has. They do not see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// fcntl(2): of byte ranges, and of a process (F_SETLK) or an opening (F_OFD_SETLK). The guest's kernel names either by a number.
    Posix,
    /// flock(2): of the whole file, and of an opening.
    Flock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Access {
    /// Shared with other readers.
    Read,
    /// Alone.
    Write,
}

/// Bytes of a file, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// None when it is empty or reaches beyond what a file can have.
    pub(in super::super) fn new(start: u64, end: u64) -> Option<Self> {
        (start <= end && end <= END).then_some(Self { start, end })
    }

    pub(super) fn is_whole(self) -> bool {
        (self.start, self.end) == (0, END)
    }

    pub(super) fn start(self) -> u64 {
        self.start
    }

    pub(super) fn end(self) -> u64 {
        self.end
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// As fcntl(2) has it: 0 means up to the end of the file.
    pub(super) fn length(self) -> i64 {
        // At most END, which fits.
        if self.end == END { 0 } else { (self.end - self.start + 1).cast_signed() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Request {
    pub(super) kind: Kind,
    pub(super) owner: u64,
    pub(super) range: Range,
    /// `None` removes the lock.
    pub(super) access: Option<Access>,
    /// The process that asks, as the guest's first pid namespace numbers it.
    pub(super) pid: u32,
}

impl TryFrom<&LkIn> for Request {
    type Error = Errno;

    fn try_from(asked: &LkIn) -> Result<Self, Errno> {
        let FileLock { start, end, type_, pid } = asked.lk;
        let access = match type_.cast_signed() {
            kind if kind == libc::F_RDLCK => Some(Access::Read),
            kind if kind == libc::F_WRLCK => Some(Access::Write),
            kind if kind == libc::F_UNLCK => None,
            _ => return Err(Errno::INVAL),
        };
        let kind = if asked.lk_flags & LK_FLOCK != 0 { Kind::Flock } else { Kind::Posix };
        let range = Range::new(start, end).ok_or(Errno::INVAL)?;
        Ok(Self { kind, owner: asked.owner, range, access, pid })
    }
}

impl Request {
    /// Whether both would be granted at the same moment, if one of the two owners is no obstacle to the other.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.kind, self.range, self.access) == (other.kind, other.range, other.access)
    }
}

/// What the guest is told of a lock, or of none.
pub(in super::super) fn told(lock: Option<Request>, asked: &LkIn) -> FileLock {
    match lock {
        None => FileLock { type_: libc::F_UNLCK.cast_unsigned(), ..asked.lk },
        Some(Request { range, access, pid, .. }) => {
            let access = if access == Some(Access::Write) { libc::F_WRLCK } else { libc::F_RDLCK };
            FileLock { start: range.start, end: range.end, type_: access.cast_unsigned(), pid }
        }
    }
}
