//! fanotify(7), as far as a VMM without privileges may use it: marks of directories, and who changed something.

use std::{
    collections::{HashMap, hash_map},
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// What others may do to what a marked directory has in it: names, contents, attributes. Who writes to mapped memory is heard of when
/// the file is closed.
const CHANGES: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_EVENT_ON_CHILD
    | libc::FAN_ONDIR;

/// struct fanotify_event_metadata: its length, and where the fields are that matter here.
const METADATA: usize = 24;
const MASK_AT: usize = 8;
const PID_AT: usize = 20;

/// Marks that one guest may take of those that its user has (`user.max_fanotify_marks`), which others need too.
const MOST: usize = 16384;

/// A directory, and by which mount the guest has it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Place {
    /// Device and inode number.
    pub(in super::super) directory: (u64, u64),
    pub(in super::super) mount: u64,
}

/// The directories that a guest has.
#[derive(Debug)]
pub(in super::super) struct Group {
    events: File,
    process: i32,
    /// The lock is held while a mark comes or goes.
    known: Mutex<HashMap<(u64, u64), Known>>,
    marks: AtomicUsize,
    most: usize,
    /// A directory is there by two mounts: what the guest changes by one of them it does not know by the other.
    crossed: AtomicBool,
}

#[derive(Debug)]
struct Known {
    mount: u64,
    /// Inodes of the guest.
    count: usize,
    marked: bool,
}

impl Group {
    /// # Errors
    /// EINVAL before Linux 5.13, which takes none without CAP_SYS_ADMIN; ENOSYS for a kernel without fanotify; EMFILE beyond
    /// `user.max_fanotify_groups`.
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_FID;
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
        let events = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let process = rustix::process::getpid().as_raw_pid();
        let (known, marks, crossed) = (Mutex::default(), AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self { events, process, known, marks, most: MOST, crossed })
    }

    /// One that has so many marks at most.
    #[cfg(test)]
    pub(super) fn with(most: usize) -> Self {
        Self { most, ..Self::new().unwrap() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(u64, u64), Known>> {
        // Every change is one value.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest has a directory. With `mark`, changes in it are heard of from now on. `file` is a descriptor of it, which may be
    /// O_PATH.
    ///
    /// # Errors
    /// EOPNOTSUPP, ENODEV, EXDEV for a filesystem whose events cannot name files; ENOSPC beyond `MOST` or `user.max_fanotify_marks`.
    pub(in super::super) fn meet(&self, place: Place, mark: bool, file: impl AsFd) -> io::Result<()> {
        let Place { directory, mount } = place;
        let mut known = self.known();
        let marked = known.get(&directory).is_some_and(|known| known.marked);
        if mark && !marked {
            self.mark(file.as_fd())?;
        }
        let known = known.entry(directory).or_insert(Known { mount, count: 0, marked: false });
        known.count += 1;
        known.marked |= mark;
        if known.mount != mount {
            self.crossed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes one `meet` back.
    pub(in super::super) fn leave(&self, place: Place, file: impl AsFd) {
        if let hash_map::Entry::Occupied(mut known) = self.known().entry(place.directory) {
            known.get_mut().count -= 1;
            if known.get().count == 0 && known.remove().marked {
                // ENOENT: the directory was removed, and took its mark along.
                let _ = self.change(libc::FAN_MARK_REMOVE, file.as_fd());
                self.marks.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn mark(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        // The caller holds the lock, so nobody else adds one.
        if self.marks.load(Ordering::Relaxed) >= self.most {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.change(libc::FAN_MARK_ADD, directory)?;
        self.marks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn change(&self, change: libc::c_uint, directory: BorrowedFd<'_>) -> io::Result<()> {
        let (group, flags) = (self.events.as_raw_fd(), change | libc::FAN_MARK_ONLYDIR);
        // It takes no O_PATH descriptor by itself.
        // SAFETY: the path is a constant, and both descriptors are open as long as they are borrowed.
        let changed =
            unsafe { libc::fanotify_mark(group, flags, CHANGES, directory.as_raw_fd(), c".".as_ptr()) };
        if changed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes all events that wait. Whether one of them is a change that the guest may not know of: by another process, or by itself
    /// where it has a directory twice.
    pub(in super::super) fn others_changed(&self) -> bool {
        let mut buffer = [0; 4096];
        let mut others = false;
        loop {
            match (&self.events).read(&mut buffer) {
                Ok(0) | Err(_) => return others,
                Ok(length) => others |= self.by_others(buffer.get(..length).unwrap_or_default()),
            }
        }
    }

    /// Events are whole. What is no such thing counts as a change, as do events that were too many.
    fn by_others(&self, mut events: &[u8]) -> bool {
        while let Some((length, mask, process)) = metadata(events) {
            let own = process == self.process && !self.crossed.load(Ordering::Relaxed);
            if mask & libc::FAN_Q_OVERFLOW != 0 || !own {
                return true;
            }
            match events.get(length..) {
                Some(rest) if length >= METADATA => events = rest,
                _ => return true,
            }
        }
        !events.is_empty()
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Length, mask and process of the first event. The kernel names no process but this one to who has no privileges.
fn metadata(events: &[u8]) -> Option<(usize, u64, i32)> {
    let length = u32::from_ne_bytes(*events.first_chunk()?);
    let mask = u64::from_ne_bytes(*events.get(MASK_AT..)?.first_chunk()?);
    let process = i32::from_ne_bytes(*events.get(PID_AT..)?.first_chunk()?);
    Some((length as usize, mask, process))
}
