//! What watchers of volumes are told: events of inotify(7) with the place that they happened at.

use crate::{agent, limits};

/// IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF: what
/// another than the guest can have done to a file. Opening and reading are told to nobody.
pub const EVENTS: u32 =
    MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF;
pub const MODIFY: u32 = 0x2;
pub const ATTRIB: u32 = 0x4;
pub const CLOSE_WRITE: u32 = 0x8;
pub const MOVED_FROM: u32 = 0x40;
pub const MOVED_TO: u32 = 0x80;
pub const CREATE: u32 = 0x100;
pub const DELETE: u32 = 0x200;
pub const DELETE_SELF: u32 = 0x400;
pub const MOVE_SELF: u32 = 0x800;
/// IN_ISDIR: the name is that of a directory.
pub const IS_DIRECTORY: u32 = 0x4000_0000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    #[error("{0:?} is no path of a watched file in the share")]
    Path(String),
    #[error("{0:?} is no name of a file")]
    Name(String),
    #[error("{0:#x} is no event that watchers can be told of")]
    Events(u32),
}

/// A path in the share, relative to it: plain names, of any bytes, and at most PATH_MAX of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchPath(Vec<u8>);

impl WatchPath {
    const MAX: usize = 4095;

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for WatchPath {
    type Error = WatchError;

    fn try_from(path: Vec<u8>) -> Result<Self, WatchError> {
        if path.len() <= Self::MAX && path.split(|byte| *byte == b'/').all(is_name) {
            return Ok(Self(path));
        }
        Err(WatchError::Path(String::from_utf8_lossy(&path[..path.len().min(Self::MAX)]).into_owned()))
    }
}

/// The name of a file in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// NAME_MAX of Linux, in bytes.
    pub const MAX: usize = 255;

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for Name {
    type Error = WatchError;

    fn try_from(name: Vec<u8>) -> Result<Self, WatchError> {
        if is_name(&name) {
            return Ok(Self(name));
        }
        Err(WatchError::Name(String::from_utf8_lossy(&name[..name.len().min(Self::MAX)]).into_owned()))
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= Name::MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

/// One event, as watchers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEvent {
    pub path: WatchPath,
    /// `None` for an event of the watched file itself.
    pub name: Option<Name>,
    /// One or more of `EVENTS`, and `IS_DIRECTORY`.
    pub mask: u32,
    pub cookie: u32,
}

impl TryFrom<agent::FileEvent> for FileEvent {
    type Error = WatchError;

    fn try_from(event: agent::FileEvent) -> Result<Self, WatchError> {
        if event.mask & EVENTS == 0 || event.mask & !(EVENTS | IS_DIRECTORY) != 0 {
            return Err(WatchError::Events(event.mask));
        }
        let name = if event.name.is_empty() { None } else { Some(event.name.try_into()?) };
        Ok(Self { path: event.path.try_into()?, name, mask: event.mask, cookie: event.cookie })
    }
}

impl From<FileEvent> for agent::FileEvent {
    fn from(event: FileEvent) -> Self {
        let name = event.name.map(|name| name.0).unwrap_or_default();
        let (mask, cookie) = (event.mask, event.cookie);
        Self { path: event.path.0, name, mask, cookie, ..Default::default() }
    }
}

/// A watched file or directory, as the guest tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watched {
    pub path: WatchPath,
    /// st_ino.
    pub inode: u64,
    /// Of `EVENTS`.
    pub events: u32,
}

impl TryFrom<agent::WatchedFile> for Watched {
    type Error = WatchError;

    fn try_from(file: agent::WatchedFile) -> Result<Self, WatchError> {
        Ok(Self { path: file.path.try_into()?, inode: file.inode, events: file.events & EVENTS })
    }
}

impl From<Watched> for agent::WatchedFile {
    fn from(watched: Watched) -> Self {
        let (inode, events) = (watched.inode, watched.events);
        Self { path: watched.path.0, inode, events, ..Default::default() }
    }
}

/// What is watched in the volumes of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Another one, another set.
    pub generation: u64,
    pub watches: Vec<Watched>,
    /// How many more there are, and the first of them.
    pub left_out: u64,
    pub first_left_out: Option<WatchPath>,
}

impl From<agent::WaitWatchesResponse> for Answer {
    /// Leaves out what is no file of the share, what nobody asks anything of, and what is too much.
    fn from(answer: agent::WaitWatchesResponse) -> Self {
        let mut bytes = 0;
        let within = |watched: &Watched| {
            bytes += watched.path.as_bytes().len();
            bytes <= limits::WATCH_BYTES
        };
        let watches = answer.watches.into_iter().take(limits::WATCHES);
        let watches = watches.filter_map(|file| Watched::try_from(file).ok()).filter(|w| w.events != 0);
        Self {
            generation: answer.generation,
            watches: watches.take_while(within).collect(),
            left_out: answer.left_out,
            first_left_out: answer.first_left_out.try_into().ok(),
        }
    }
}

impl From<Answer> for agent::WaitWatchesResponse {
    fn from(answer: Answer) -> Self {
        Self {
            generation: answer.generation,
            watches: answer.watches.into_iter().map(Into::into).collect(),
            left_out: answer.left_out,
            first_left_out: answer.first_left_out.map(|path| path.0).unwrap_or_default(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests;
