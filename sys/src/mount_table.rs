//! The mounts of a thread's mount namespace, as the kernel lists them (proc_pid_mountinfo(5)).
//!
//!   id parent major:minor root mount-point options [tag …] - type source super-options

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// Mounts that hide each other are followed this far: each costs its maker a mount.
const DEPTH_MAX: usize = 4096;

/// MOUNT_ATTR_* of linux/mount.h by the word that mountinfo has for it.
const ATTRIBUTES: [(&[u8], u64); 7] = [
    (b"ro", libc::MOUNT_ATTR_RDONLY),
    (b"nosuid", libc::MOUNT_ATTR_NOSUID),
    (b"nodev", libc::MOUNT_ATTR_NODEV),
    (b"noexec", libc::MOUNT_ATTR_NOEXEC),
    (b"noatime", libc::MOUNT_ATTR_NOATIME),
    (b"nodiratime", libc::MOUNT_ATTR_NODIRATIME),
    (b"nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As `stx_mnt_id` of statx(2).
    pub id: u64,
    pub parent: u64,
    /// Major and minor number of the filesystem's device, which names the filesystem as long as it is mounted anywhere.
    pub device: (u32, u32),
    /// What is mounted, from the root of the filesystem on.
    pub root: PathBuf,
    /// Where, from the root directory of the thread on.
    pub point: PathBuf,
    /// `MOUNT_ATTR_*` bits.
    pub attributes: u64,
    /// A bind of what is above it leaves it out.
    pub unbindable: bool,
    /// The type of the filesystem.
    pub kind: Vec<u8>,
}

/// All mounts that the thread's root directory leads to.
#[derive(Debug, Clone, Default)]
pub struct MountTable(Vec<Entry>);

impl MountTable {
    /// Those of the calling thread.
    ///
    /// # Errors
    /// When /proc has them not.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/thread-self/mountinfo")?))
    }

    /// The text of a mountinfo file. A line of another form is left out.
    pub fn parse(text: &[u8]) -> Self {
        Self(text.split(|&byte| byte == b'\n').filter_map(entry).collect())
    }

    /// All, in the order of the kernel's list.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The mount of this id.
    pub fn entry(&self, id: u64) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.id == id)
    }

    /// The mounts that are seen below `path`, a place in the mount `id`, each after those above it. A mount that another one
    /// covers is not among them, nor one that cannot be bound, nor what is below such a mount.
    pub fn below(&self, id: u64, path: &Path) -> Vec<&Entry> {
        let mut children: HashMap<u64, Vec<&Entry>> = HashMap::new();
        for entry in self.0.iter().filter(|entry| entry.id != entry.parent) {
            children.entry(entry.parent).or_default().push(entry);
        }
        let mut found = Vec::new();
        let mut todo = seen(&children, id, path);
        while let Some(entry) = todo.pop() {
            let Some(top) = uncovered(&children, entry).filter(|top| !top.unbindable) else { continue };
            found.push(top);
            todo.extend(seen(&children, top.id, &top.point));
        }
        found
    }
}

type Children<'table> = HashMap<u64, Vec<&'table Entry>>;

/// The children of a mount that lie strictly below `path`, but for those that a sibling hides: one that lies below another's
/// mount point was there before that.
fn seen<'table>(children: &Children<'table>, id: u64, path: &Path) -> Vec<&'table Entry> {
    let below: Vec<_> = children
        .get(&id)
        .into_iter()
        .flatten()
        .copied()
        .filter(|entry| entry.point != path && entry.point.starts_with(path))
        .collect();
    let hidden = |entry: &Entry| {
        below.iter().any(|other| other.point != entry.point && entry.point.starts_with(&other.point))
    };
    below.iter().copied().filter(|entry| !hidden(entry)).collect()
}

/// What is on top of all that is mounted on the root of this mount.
fn uncovered<'table>(children: &Children<'table>, mut entry: &'table Entry) -> Option<&'table Entry> {
    for _ in 0..DEPTH_MAX {
        let covers = |child: &&&Entry| child.point == entry.point;
        match children.get(&entry.id).and_then(|children| children.iter().rfind(covers)) {
            Some(cover) => entry = cover,
            None => return Some(entry),
        }
    }
    None
}

fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let attributes = attributes(fields.next()?);
    let tags: Vec<_> = fields.by_ref().take_while(|field| *field != b"-").collect();
    let unbindable = tags.contains(&&b"unbindable"[..]);
    let kind = fields.next()?.to_vec();
    Some(Entry { id, parent, device, root, point, attributes, unbindable, kind })
}

fn attributes(options: &[u8]) -> u64 {
    let words: Vec<_> = options.split(|&byte| byte == b',').collect();
    let set = ATTRIBUTES.iter().filter(|(word, _)| words.contains(word));
    let set = set.fold(0, |bits, (_, bit)| bits | bit);
    // No word stands for it: it is what remains.
    let other = words.contains(&&b"noatime"[..]) || words.contains(&&b"relatime"[..]);
    set | if other { 0 } else { libc::MOUNT_ATTR_STRICTATIME }
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = match (first, tail.get(..3)) {
            (b'\\', Some(digits)) => {
                std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests;
