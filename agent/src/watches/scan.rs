//! Finds what is watched in the volumes: the kernel has no list, so all inotify descriptors are looked at.
//!
//!   /proc/PID/fd ─inotify?─▶ /proc/PID/fdinfo/N ─▶ `Line`s of a volume's device ─▶ inode ─▶ its path in the share
//!
//! An inode that was found is kept, with a descriptor that keeps its path in the kernel's memory, for as long as it is
//! watched. What a process does to its descriptors meanwhile makes this scan miss something until the next, at worst.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    container::SharePath,
    limits,
    watch::{WatchPath, Watched},
};

use super::{
    fdinfo::{Device, Handle, Line},
    volumes::{Found, Volumes, below_mount},
};

/// Bytes that are read of one descriptor: some 60,000 watches.
const FDINFO: u64 = 8 << 20;
/// Watched inodes of one scan; many times what can be told of, so that the rest is counted.
const SEEN: usize = 16_384;
const INOTIFY: &[u8] = b"anon_inode:inotify";

type Key = (Device, Handle);

/// An answer to the host, of which a part of the watches may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// Sorted.
    pub(super) watches: Vec<Watched>,
    pub(super) left_out: u64,
    pub(super) first_left_out: Option<WatchPath>,
}

/// The watched inodes by their path: several, when several volumes have the file.
pub(super) type Table = HashMap<WatchPath, Vec<Arc<OwnedFd>>>;

/// What is known from one scan to the next.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    volumes: Volumes,
    held: HashMap<Key, Found>,
    opening: Duration,
}

/// What one pass over the processes has seen, in order.
#[derive(Debug, Default)]
struct Seen {
    /// An inotify descriptor, of whatever files.
    any: bool,
    lines: Vec<Line>,
    index: HashMap<Key, usize>,
    beyond: u64,
}

impl Seen {
    fn add(&mut self, line: Line) {
        if let Some(&at) = self.index.get(&(line.device, line.handle)) {
            self.lines[at].events |= line.events;
        } else if self.lines.len() == SEEN {
            self.beyond += 1;
        } else {
            self.index.insert((line.device, line.handle), self.lines.len());
            self.lines.push(line);
        }
    }
}

impl Scanner {
    /// Looks for watches in the volumes that are mounted at these places. Blocks on the kernel, and on the file server for paths
    /// that are not in its memory.
    ///
    /// # Errors
    /// When the list of processes cannot be opened.
    pub(super) fn scan(&mut self, mounted: &[(SharePath, PathBuf)]) -> io::Result<Set> {
        let seen = self.look(mounted)?;
        if !seen.any {
            self.volumes = Volumes::default();
        }
        self.held.retain(|key, held| {
            seen.index.contains_key(key) && below_mount(&held.file).is_ok_and(|now| now == held.below)
        });
        Ok(self.choose(&seen))
    }

    /// What the last scan took for watches that it has found for the first time, which no later one does again.
    pub(super) fn opening(&self) -> Duration {
        self.opening
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        for held in self.held.values() {
            table.entry(held.watched.path.clone()).or_default().push(held.file.clone());
        }
        table
    }

    /// All watches that may be of a volume.
    fn look(&mut self, mounted: &[(SharePath, PathBuf)]) -> io::Result<Seen> {
        let mut seen = Seen::default();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            // A process that is gone watches nothing.
            if let Some(pid) = pid.filter(|pid| *pid != std::process::id()) {
                let _ = self.look_at(pid, mounted, &mut seen);
            }
        }
        Ok(seen)
    }

    fn look_at(&mut self, pid: u32, mounted: &[(SharePath, PathBuf)], seen: &mut Seen) -> io::Result<()> {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let link = rustix::fs::readlink(descriptor.path(), Vec::new());
            if !link.is_ok_and(|link| link.as_bytes() == INOTIFY) {
                continue;
            }
            if !seen.any {
                self.volumes.become_those_of(mounted);
                seen.any = true;
            }
            let number = descriptor.file_name();
            let fdinfo = File::open(Path::new(&format!("/proc/{pid}/fdinfo")).join(number))?;
            for line in BufReader::new(fdinfo.take(FDINFO)).lines() {
                let line = Line::parse(&line?);
                if let Some(line) = line.filter(|line| line.events != 0 && self.volumes.has(line)) {
                    seen.add(line);
                }
            }
        }
        Ok(())
    }

    /// Those that are known already come first: who is told of changes stays so.
    fn choose(&mut self, seen: &Seen) -> Set {
        let (known, new): (Vec<&Line>, Vec<&Line>) =
            seen.lines.iter().partition(|line| self.held.contains_key(&(line.device, line.handle)));
        let mut bounds = Bounds::default();
        self.opening = Duration::ZERO;
        let mut left_out = seen.beyond;
        let mut first_left_out = None;
        for line in known.into_iter().chain(new) {
            let key = (line.device, line.handle);
            if bounds.are_full() {
                if first_left_out.is_none() {
                    first_left_out = self.volumes.open(line).map(|found| found.watched.path);
                }
                left_out += 1;
                continue;
            }
            if let Some(held) = self.held.get_mut(&key) {
                held.watched.events = line.events;
                bounds.take(&held.watched.path);
                continue;
            }
            let began = Instant::now();
            if let Some(found) = self.volumes.open(line) {
                bounds.take(&found.watched.path);
                self.held.insert(key, found);
                self.opening += began.elapsed();
            }
        }
        Set { watches: together(self.held.values().map(|held| &held.watched)), left_out, first_left_out }
    }
}

/// What the host takes of one sandbox.
#[derive(Debug, Default)]
struct Bounds {
    watches: usize,
    bytes: usize,
}

impl Bounds {
    fn are_full(&self) -> bool {
        // A path has at most PATH_MAX, so one more always fits.
        self.watches >= limits::WATCHES || self.bytes + libc::PATH_MAX as usize > limits::WATCH_BYTES
    }

    fn take(&mut self, path: &WatchPath) {
        self.watches += 1;
        self.bytes += path.as_bytes().len();
    }
}

/// One for each file: it may be watched as one of several inodes.
fn together<'w>(watches: impl Iterator<Item = &'w Watched>) -> Vec<Watched> {
    let mut files: HashMap<(&WatchPath, u64), u32> = HashMap::new();
    for Watched { path, inode, events } in watches {
        *files.entry((path, *inode)).or_default() |= events;
    }
    let watched =
        |((path, inode), events): ((&WatchPath, u64), u32)| Watched { path: path.clone(), inode, events };
    let mut all: Vec<Watched> = files.into_iter().map(watched).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests;
