//! The marks that stand for what is watched in the guest.
//!
//!   `Watched` (path, inode) ─open beneath the share, same inode?─▶ `FileId` ─▶ mark of the group
//!
//! The guest may name anything in its own share and nothing else. Several paths can be one inode: then it has one mark.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::fd::OwnedFd,
};

use bulkhead_protocol::watch::{self, WatchPath, Watched};
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::fanotify::{FileId, Group, RENAME};

/// What a mark of a file can report.
const OF_FILE: u32 =
    watch::MODIFY | watch::ATTRIB | watch::CLOSE_WRITE | watch::DELETE_SELF | watch::MOVE_SELF;
const MOVED: u32 = watch::MOVED_FROM | watch::MOVED_TO;
/// Marks of inodes that could not be found again to take their marks away. Nobody hears of their events.
const STALE: usize = 256;

/// A mark that could not be made, which is no fault of the guest's.
#[derive(Debug, thiserror::Error)]
#[error("mark a watched file")]
pub(super) struct MarkError {
    pub(super) path: WatchPath,
    pub(super) source: io::Error,
}

/// What is known of one inode.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) files: Vec<Watched>,
    directory: bool,
    events: u64,
}

impl Mark {
    fn covers(&self, events: u32) -> bool {
        let wanted = u64::from(if self.directory { events & !MOVED } else { events & OF_FILE });
        let moved = !self.directory || events & MOVED == 0 || self.events & (RENAME | u64::from(MOVED)) != 0;
        moved && self.events & wanted == wanted
    }
}

#[derive(Debug)]
pub(super) struct Marks {
    share: OwnedFd,
    ids: BTreeMap<(WatchPath, u64), FileId>,
    marks: HashMap<FileId, Mark>,
    stale: usize,
}

impl Marks {
    /// Of a share, by a descriptor of its root.
    pub(super) fn new(share: OwnedFd) -> Self {
        Self { share, ids: BTreeMap::new(), marks: HashMap::new(), stale: 0 }
    }

    pub(super) fn get(&self, id: &FileId) -> Option<&Mark> {
        self.marks.get(id)
    }

    /// Whether an inode is watched by this path that is there no more.
    pub(super) fn has_lost(&self, path: &WatchPath) -> bool {
        let mut watched = self.ids.range((path.clone(), 0)..=(path.clone(), u64::MAX));
        watched.any(|((path, inode), _)| self.is_gone(path, *inode))
    }

    /// Makes the marks those of `set`. Files that are not there, or others by now, are tried again the next time.
    pub(super) fn become_those_of(&mut self, group: &Group, set: &[Watched]) -> Vec<MarkError> {
        let wanted: HashSet<(&WatchPath, u64)> = set.iter().map(|file| (&file.path, file.inode)).collect();
        let gone = self.ids.keys().filter(|(path, inode)| !wanted.contains(&(path, *inode)));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.remove(group, &key);
        }
        if self.stale > STALE {
            self.make_anew(group);
        }
        let add = |file: &Watched| {
            let added = self.add(group, file);
            added.err().map(|source| MarkError { path: file.path.clone(), source })
        };
        set.iter().filter_map(add).collect()
    }

    fn add(&mut self, group: &Group, file: &Watched) -> io::Result<()> {
        let key = (file.path.clone(), file.inode);
        if let Some(mark) = self.ids.get(&key).and_then(|id| self.marks.get_mut(id)) {
            mark.files.retain(|known| known.path != file.path);
            mark.files.push(file.clone());
            if mark.covers(file.events) {
                return Ok(());
            }
        }
        let Some((place, directory)) = self.find(&file.path, file.inode) else { return Ok(()) };
        let id = FileId::of(&place)?;
        let events = mark(group, &place, directory, file.events)?;
        let mark = self.marks.entry(id.clone()).or_insert(Mark { files: Vec::new(), directory, events: 0 });
        mark.events |= events;
        mark.files.retain(|known| known.path != file.path);
        mark.files.push(file.clone());
        self.ids.insert(key, id);
        Ok(())
    }

    fn remove(&mut self, group: &Group, key: &(WatchPath, u64)) {
        let Some(id) = self.ids.remove(key) else { return };
        let Some(mark) = self.marks.get_mut(&id) else { return };
        mark.files.retain(|file| file.path != key.0);
        if !mark.files.is_empty() {
            return;
        }
        let events = mark.events;
        self.marks.remove(&id);
        let found =
            self.find(&key.0, key.1).filter(|(place, _)| FileId::of(place).is_ok_and(|now| now == id));
        if found.is_none_or(|(place, _)| group.unmark(&place, events).is_err()) {
            self.stale += 1;
        }
    }

    /// Leaves no mark behind; events of a few milliseconds are lost.
    fn make_anew(&mut self, group: &Group) {
        group.unmark_all();
        self.forget();
    }

    /// The group is gone, and its marks with it.
    pub(super) fn forget(&mut self) {
        self.stale = 0;
        self.ids.clear();
        self.marks.clear();
    }

    /// Whether the path is no longer that of the inode.
    pub(super) fn is_gone(&self, path: &WatchPath, inode: u64) -> bool {
        match self.open(path) {
            Ok(place) => !rustix::fs::fstat(place).is_ok_and(|found| found.st_ino == inode),
            Err(errno) => matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP),
        }
    }

    /// Whether a directory has something of this name.
    pub(super) fn has(&self, directory: &WatchPath, name: &[u8]) -> bool {
        let path = [directory.as_bytes(), b"/", name].concat();
        WatchPath::try_from(path).is_ok_and(|path| !matches!(self.open(&path), Err(Errno::NOENT)))
    }

    /// The directory or regular file, and whether it is a directory.
    fn find(&self, path: &WatchPath, inode: u64) -> Option<(OwnedFd, bool)> {
        let place = self.open(path).ok()?;
        let found = rustix::fs::fstat(&place).ok().filter(|found| found.st_ino == inode)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => Some((place, true)),
            FileType::RegularFile => Some((place, false)),
            _ => None,
        }
    }

    fn open(&self, path: &WatchPath) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.share, path.as_bytes(), flags, Mode::empty(), resolve)
    }
}

/// Marks what the watchers of a file ask for, and what tells that it is gone: for a file a change of its link count, for
/// a directory in a watched one its removal there.
fn mark(group: &Group, place: &OwnedFd, directory: bool, events: u32) -> io::Result<u64> {
    if !directory {
        let events = u64::from(events & OF_FILE | watch::ATTRIB);
        return group.mark(place, events).map(|()| events);
    }
    let below = libc::FAN_EVENT_ON_CHILD | libc::FAN_ONDIR;
    let others = u64::from(events & !MOVED | watch::DELETE) | below;
    if events & MOVED == 0 {
        return group.mark(place, others).map(|()| others);
    }
    match group.mark(place, others | RENAME) {
        // Before Linux 5.17.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let events = others | u64::from(events);
            group.mark(place, events).map(|()| events)
        }
        marked => marked.map(|()| others | RENAME),
    }
}

#[cfg(test)]
pub(super) mod tests;
