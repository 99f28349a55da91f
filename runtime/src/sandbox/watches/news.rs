//! From events of fanotify to what watchers in the guest are told.
//!
//!   event ─not of this sandbox's VMM─▶ the marks of its places ─▶ one inotify event for each watched path and kind
//!
//! The guest's own kernel has told its watchers of what the guest did, by the VMM: an echo would make build tools loop.
//! fanotify puts events of the same place together, so their order is lost: it is chosen so that it ends as the directory is.

use std::collections::VecDeque;

use bulkhead_protocol::watch::{
    ATTRIB, CLOSE_WRITE, CREATE, DELETE, DELETE_SELF, FileEvent, IS_DIRECTORY, MODIFY, MOVE_SELF, MOVED_FROM,
    MOVED_TO, Name, WatchPath,
};

use super::{
    fanotify::{Event, OVERFLOW, Place},
    marks::Marks,
};

/// Events that wait for the guest to take them.
const WAITING: usize = 4096;
const APPEARS: [u32; 2] = [CREATE, MOVED_TO];
const VANISHES: [u32; 2] = [MOVED_FROM, DELETE];
const CHANGES: [u32; 3] = [ATTRIB, MODIFY, CLOSE_WRITE];
const ITSELF: [u32; 5] = [ATTRIB, MODIFY, CLOSE_WRITE, MOVE_SELF, DELETE_SELF];

/// Events on their way to the guest.
#[derive(Debug, Default)]
pub(super) struct News {
    waiting: VecDeque<FileEvent>,
    cookie: u32,
    /// Events that the kernel or this queue had no room for.
    lost: bool,
}

impl News {
    /// Takes what the kernel tells. `own` are the pids of the VMM.
    pub(super) fn take(&mut self, events: &[Event], marks: &Marks, own: &[u32]) {
        for event in events {
            self.lost |= event.mask & OVERFLOW != 0;
            if !u32::try_from(event.pid).is_ok_and(|pid| own.contains(&pid)) {
                self.take_one(event, marks);
            }
        }
    }

    /// The next ones, at most `count`.
    pub(super) fn next(&mut self, count: usize) -> Vec<FileEvent> {
        self.waiting.drain(..count.min(self.waiting.len())).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether events were lost since this was asked the last time.
    pub(super) fn has_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    fn take_one(&mut self, event: &Event, marks: &Marks) {
        // FAN_* and IN_* are the same bits, FAN_ONDIR and IN_ISDIR too.
        let mask = event.mask as u32;
        let renamed = event.places.iter().any(|place| matches!(place, Place::From { .. } | Place::To { .. }));
        if renamed {
            self.cookie = self.cookie.wrapping_add(1).max(1);
        }
        for place in &event.places {
            match place {
                Place::Named { directory, name } => {
                    let Some(mark) = marks.get(directory) else { continue };
                    for file in &mark.files {
                        self.named(mask, &file.path, name, file.events, marks);
                    }
                }
                Place::From { directory, name } | Place::To { directory, name } => {
                    let kind = if matches!(place, Place::From { .. }) { MOVED_FROM } else { MOVED_TO };
                    let Some(mark) = marks.get(directory) else { continue };
                    let cookie = self.cookie;
                    for file in mark.files.iter().filter(|file| file.events & kind != 0) {
                        self.say(&file.path, Some(name), kind | mask & IS_DIRECTORY, cookie);
                    }
                }
                Place::Itself(id) => {
                    let Some(mark) = marks.get(id) else { continue };
                    for file in &mark.files {
                        self.itself(mask, &file.path, file.events, file.inode, marks);
                    }
                }
            }
        }
    }

    fn named(&mut self, mask: u32, path: &WatchPath, name: &[u8], wanted: u32, marks: &Marks) {
        let kind = mask & IS_DIRECTORY;
        let (appears, vanishes) = (any(&APPEARS), any(&VANISHES));
        let ends_there = mask & vanishes == 0 || (mask & appears != 0 && marks.has(path, name));
        let order: Vec<u32> = if ends_there {
            VANISHES.iter().chain(&APPEARS).chain(&CHANGES).copied().collect()
        } else {
            APPEARS.iter().chain(&CHANGES).chain(&VANISHES).copied().collect()
        };
        for bit in order.into_iter().filter(|bit| mask & wanted & bit != 0) {
            self.say(path, Some(name), bit | kind, 0);
        }
        // The VMM keeps what the guest watches open, so the kernel does not say that it is gone.
        let below = [path.as_bytes(), b"/", name].concat();
        if let Ok(below) = WatchPath::try_from(below)
            && mask & DELETE != 0
            && marks.has_lost(&below)
        {
            self.say(&below, None, DELETE_SELF, 0);
        }
    }

    fn itself(&mut self, mask: u32, path: &WatchPath, wanted: u32, inode: u64, marks: &Marks) {
        let kind = mask & IS_DIRECTORY;
        for bit in ITSELF.into_iter().filter(|bit| mask & wanted & bit != 0) {
            self.say(path, None, bit | kind, 0);
        }
        // The same, of a file: its link count changes.
        if mask & ATTRIB != 0 && mask & (IS_DIRECTORY | DELETE_SELF) == 0 && marks.is_gone(path, inode) {
            self.say(path, None, DELETE_SELF, 0);
        }
    }

    /// An event that is the same as the one before it says nothing new, as in inotify(7).
    fn say(&mut self, path: &WatchPath, name: Option<&[u8]>, mask: u32, cookie: u32) {
        let name = match name.map(|name| Name::try_from(name.to_vec())) {
            None => None,
            Some(Ok(name)) => Some(name),
            Some(Err(_)) => return,
        };
        let event = FileEvent { path: path.clone(), name, mask, cookie };
        if self.waiting.back() == Some(&event) {
            return;
        }
        if self.waiting.len() == WAITING {
            self.lost = true;
        } else {
            self.waiting.push_back(event);
        }
    }
}

fn any(bits: &[u32]) -> u32 {
    bits.iter().fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests;
