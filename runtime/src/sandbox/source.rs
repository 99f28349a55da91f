//! What a container takes from the host, opened in the mount namespace of who creates it.
//!
//!   Export ─open─▶ Source { detached mount, identity }        rbind ─▶ one Source more for each mount below it
//!
//! A source is what it is, not its path: a path may lead to it through binds, as Kubernetes' subPath does. Its identity is the
//! filesystem, and in it the object and its path from the filesystem's root. So one source can be seen to be inside of another.
//!
//! A detached mount belongs to no peer group of the host's and is slave of none. As a peer its removal would unmount the host's own
//! mounts below the source; as a slave it would get what the host mounts there later, without the export's attributes,
//! and the host could not unmount that while the guest uses it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    container::{Memory, SharePath, SocketFile},
    limits,
};
use bulkhead_sys::{
    mount::Attributes,
    mount_table::{Entry, MountTable},
};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, fstat, fstatfs, openat,
        openat2, stat, statx,
    },
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use crate::spec::{Export, ExportKind};

/// A guest may make setuid programs in its volumes, and there may be device nodes: neither means anything to a process of the
/// host that looks through the export. The guest's kernel goes by its own mounts. Not noexec, which access(2) shows.
const HARMLESS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("share {}", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("read the table of mounts")]
    Table { source: io::Error },
    #[error(
        "share {}: {count} mounts below the sources of the container are more than {}; a bind that is not recursive takes none along",
        .path.display(), limits::SUBMOUNTS
    )]
    Submounts { path: PathBuf, count: usize },
}

impl SourceError {
    fn open(path: &Path) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Open { path: path.to_owned(), source: errno.into() }
    }
}

/// What something of the host is, however it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The filesystem's device.
    pub(crate) filesystem: (u32, u32),
    /// Device and inode number.
    pub(crate) object: (u64, u64),
    /// From the root of the filesystem on; `None` when that is not known.
    pub(crate) path: Option<PathBuf>,
}

/// One directory or file, ready to be shown to the guest.
#[derive(Debug)]
pub(crate) struct Source {
    /// As the caller sees it.
    pub(crate) path: PathBuf,
    pub(crate) directory: bool,
    pub(crate) identity: Identity,
    /// `MOUNT_ATTR_*` bits of the caller's mount.
    pub(crate) attributes: u64,
    /// A detached copy of the caller's mount without those below it, as writable as that. It is private.
    pub(crate) tree: OwnedFd,
    pub(crate) content: Content,
}

/// What of a source the guest gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// The source itself, by way of the share.
    Files,
    /// What stands for it: it is the shared memory of a pod, which nobody on the host uses.
    Memory(Memory),
    /// What leads to it.
    Socket(SocketFile),
}

/// An export of a container with what is mounted below it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) export: Export,
    pub(crate) source: Source,
    /// Each after those above it, by its path below the source.
    pub(crate) below: Vec<(SharePath, Source)>,
}

/// What a container's exports are. Warnings name what is left out.
///
/// # Errors
/// When one cannot be opened, or has too much mounted below it.
pub(crate) fn open_all(exports: &[Export], warnings: &mut Vec<String>) -> Result<Vec<Opened>, SourceError> {
    if exports.is_empty() {
        return Ok(Vec::new());
    }
    let places = exports.iter().map(|export| {
        let place = open_source(&export.source, export.kind).map_err(SourceError::open(&export.source))?;
        Ok((export, place))
    });
    let places = places.collect::<Result<Vec<_>, SourceError>>()?;
    // Later than the places, so that it has the mounts that they are in.
    let table = MountTable::read().map_err(|source| SourceError::Table { source })?;
    let mut count = 0;
    let opened = places.into_iter().map(|(export, place)| {
        let mount = mount_of(&place).map_err(SourceError::open(&export.source))?;
        let entry = table.entry(mount);
        let source = source(&export.source, &place, entry).map_err(SourceError::open(&export.source))?;
        let content = content(export, &place, entry).map_err(SourceError::open(&export.source))?;
        let source = Source { content, ..source };
        let listed = if export.recursive { table.below(mount, &export.source) } else { Vec::new() };
        count += listed.len();
        if count > limits::SUBMOUNTS {
            return Err(SourceError::Submounts { path: export.source.clone(), count });
        }
        let below = listed.iter().filter_map(|entry| submount(&export.source, entry, warnings)).collect();
        Ok(Opened { export: export.clone(), source, below })
    });
    opened.collect()
}

/// The path was resolved when the spec was read. What was put in its place since, by a container that may write
/// there, is not followed: no link is, and nothing but what was there is opened.
fn open_source(path: &Path, kind: ExportKind) -> Result<OwnedFd, Errno> {
    let place = open_plainly(path)?;
    match (FileType::from_raw_mode(fstat(&place)?.st_mode), kind) {
        (FileType::Directory, ExportKind::Directory)
        | (FileType::RegularFile, ExportKind::File)
        | (FileType::Socket, ExportKind::Socket) => Ok(place),
        (_, ExportKind::Directory) => Err(Errno::NOTDIR),
        (FileType::Directory, ExportKind::File | ExportKind::Socket) => Err(Errno::ISDIR),
        (_, ExportKind::File | ExportKind::Socket) => Err(Errno::OPNOTSUPP),
    }
}

fn open_plainly(path: &Path) -> Result<OwnedFd, Errno> {
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), links)
}

/// The number of the mount that a place is in.
fn mount_of(place: &OwnedFd) -> Result<u64, Errno> {
    // The kernel knows it without a word of the filesystem, which may be one that lets not even root look.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(statx(place, "", flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn source(path: &Path, place: &OwnedFd, entry: Option<&Entry>) -> Result<Source, Errno> {
    let Stat { st_dev, st_ino, st_mode, .. } = fstat(place)?;
    // Of a mount that has gone since the table says nothing: its filesystem is then known by its files alone.
    let filesystem = entry.map_or_else(|| major_minor(st_dev), |entry| entry.device);
    Ok(Source {
        path: path.to_owned(),
        directory: FileType::from_raw_mode(st_mode) == FileType::Directory,
        identity: Identity {
            filesystem,
            object: (st_dev, st_ino),
            path: entry.and_then(|entry| in_filesystem(entry, path)),
        },
        attributes: entry.map_or(0, |entry| entry.attributes),
        tree: clone(place, false)?,
        content: Content::Files,
    })
}

fn major_minor(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// The path of what `path` is in this mount, from the root of its filesystem on.
fn in_filesystem(entry: &Entry, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(&entry.point).ok()?;
    Some(if below.as_os_str().is_empty() { entry.root.clone() } else { entry.root.join(below) })
}

/// What is mounted below a source, unless it has gone meanwhile. A guest can have neither a device nor a socket of the host.
fn submount(above: &Path, entry: &Entry, warnings: &mut Vec<String>) -> Option<(SharePath, Source)> {
    let opened = || -> Result<_, Errno> {
        let place = open_plainly(&entry.point)?;
        if mount_of(&place)? != entry.id {
            return Err(Errno::NOENT);
        }
        let kind = FileType::from_raw_mode(fstat(&place)?.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Err(Errno::OPNOTSUPP);
        }
        source(&entry.point, &place, Some(entry))
    };
    let below = || SharePath::try_from(entry.point.strip_prefix(above).ok()?.to_str()?.to_owned()).ok();
    let why = match opened() {
        Ok(source) => match below() {
            Some(below) => return Some((below, source)),
            None => "its path is not UTF-8".to_owned(),
        },
        Err(Errno::NOENT) => return None,
        Err(Errno::OPNOTSUPP) => "it is neither a directory nor a regular file".to_owned(),
        Err(errno) => errno.to_string(),
    };
    let warning = format!("the mount {} is left out: {why}", entry.point.display());
    // A source may be named more than once.
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
    None
}

fn content(export: &Export, place: &OwnedFd, entry: Option<&Entry>) -> Result<Content, Errno> {
    if export.kind == ExportKind::Socket {
        let Stat { st_mode, st_uid, st_gid, .. } = fstat(place)?;
        return Ok(Content::Socket(SocketFile { mode: st_mode & 0o7777, uid: st_uid, gid: st_gid }));
    }
    Ok(memory(export, place, entry)?.map_or(Content::Files, Content::Memory))
}

/// A tmpfs of the host that a container gets as /dev/shm: podman and containerd make one for a pod, for it to share memory. Where
/// the guest has that, it is memory. The host's own stays what it is, and so does one that somebody has put something into.
fn memory(export: &Export, place: &OwnedFd, entry: Option<&Entry>) -> Result<Option<Memory>, Errno> {
    let Some(entry) = entry.filter(|_| export.shared_memory && export.id_map.is_none()) else {
        return Ok(None);
    };
    let whole = entry.kind == b"tmpfs" && entry.root == Path::new("/") && entry.point == export.source;
    if !whole {
        return Ok(None);
    }
    let found = fstat(place)?;
    if stat("/dev/shm").is_ok_and(|own| own.st_dev == found.st_dev) || !is_empty(place)? {
        return Ok(None);
    }
    let filesystem = fstatfs(place)?;
    let block = u64::try_from(filesystem.f_bsize).unwrap_or(0);
    Ok(Some(Memory {
        bytes: filesystem.f_blocks.saturating_mul(block),
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
    }))
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut entries = Dir::new(openat(directory, ".", flags, Mode::empty())?)?;
    let other = |name: &[u8]| name != b"." && name != b"..";
    Ok(!entries.any(|entry| entry.is_ok_and(|entry| other(entry.file_name().to_bytes()))))
}

/// Whether the guest has memory of its own in the place of this export.
pub(crate) fn is_memory(export: &Export) -> bool {
    let look = || -> Option<bool> {
        let place = open_source(&export.source, export.kind).ok()?;
        let table = MountTable::read().ok()?;
        Some(memory(export, &place, table.entry(mount_of(&place).ok()?)).ok()?.is_some())
    };
    export.shared_memory && look().unwrap_or(false)
}

/// A detached copy of the source's mount and those below it, with the attributes of the export. It is private, with all mounts
/// below it.
pub(crate) fn open_export(export: &Export) -> Result<OwnedFd, Errno> {
    let tree = clone(&open_source(&export.source, export.kind)?, export.recursive)?;
    if export.read_only {
        set_read_only(tree.as_fd(), export.read_only_recursive)?;
    }
    Ok(tree)
}

fn clone(place: &OwnedFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let tree = open_tree(place, "", flags)?;
    // The copy of a shared mount is a peer of it, that of a slave a slave of the same master. Before all else: what arrives
    // until then is below the tree, and gets the attributes that follow.
    Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() }.recursive().apply(&tree)?;
    Attributes { set: HARMLESS, ..Attributes::default() }.recursive().apply(&tree)?;
    Ok(tree)
}

/// Before the mount is attached anywhere, so there is no moment in which it could be written.
pub(crate) fn set_read_only(tree: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    Attributes { recursive, ..Attributes::read_only() }.apply(tree)
}

#[cfg(test)]
mod tests;
