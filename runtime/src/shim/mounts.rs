//! The root filesystem of a container as containerd describes it: mounts at `<bundle>/rootfs`, made here in the host's mount
//! namespace as by runc's shim, and taken away with the container.

use std::{
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
};

use containerd_shim_protos::api::Mount;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// Bytes of the options of one mount: a page, less the byte that ends them (mount(2)).
const DATA_MAX: usize = 4095;
/// Mounts of one root filesystem.
const MOUNTS_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    #[error("make {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("mount {kind} {source_name} at {}", target.display())]
    Mount { kind: String, source_name: String, target: PathBuf, source: io::Error },
    #[error("unmount {}", path.display())]
    Unmount { path: PathBuf, source: io::Error },
    #[error("rootfs has {0} mounts; at most {MOUNTS_MAX}")]
    Many(usize),
    #[error(
        "the option {0:?} of a root filesystem is not supported: mount it before, or use another snapshotter"
    )]
    Option(String),
    #[error("the options of a root filesystem take {0} bytes; the kernel takes {DATA_MAX}")]
    Long(usize),
}

/// Where a bundle has its root filesystem.
pub(super) fn rootfs(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// Makes all, or none.
///
/// # Errors
/// The first that cannot be made.
pub(super) fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), MountError> {
    if mounts.is_empty() {
        return Ok(());
    }
    if mounts.len() > MOUNTS_MAX {
        return Err(MountError::Many(mounts.len()));
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(target);
    made.map_err(|source| MountError::Make { path: target.to_owned(), source })?;
    let all = mounts.iter().try_for_each(|one| {
        // containerd has joined the bundle to it already; what leads elsewhere is not followed.
        let inside = Path::new(&one.target).strip_prefix("/").unwrap_or(Path::new(&one.target));
        let plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let at = if plain { target.join(inside) } else { target.to_owned() };
        mount_one(one, &at)
    });
    if all.is_err() {
        let _ = unmount_all(target);
    }
    all
}

/// Takes away all that is mounted there. The files of a container that goes on stay open elsewhere.
///
/// # Errors
/// What cannot be unmounted.
pub(super) fn unmount_all(target: &Path) -> Result<(), MountError> {
    // More than were made could only lie there by another's hand.
    for _ in 0..=MOUNTS_MAX {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted, or nothing is there.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(errno) => {
                return Err(MountError::Unmount { path: target.to_owned(), source: errno.into() });
            }
        }
    }
    Ok(())
}

/// What mount(2) is told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    flags: MsFlags,
    data: String,
}

fn told(options: &[String]) -> Result<Told, MountError> {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => flags -= MsFlags::MS_RDONLY,
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "suid" => flags -= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "dev" => flags -= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "exec" => flags -= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "loop" => return Err(MountError::Option(option.clone())),
            _ if option.starts_with("uidmap=") || option.starts_with("gidmap=") => {
                return Err(MountError::Option(option.clone()));
            }
            // For containerd's mount manager, which acts on it before it calls.
            _ if option.starts_with("X-containerd.") => {}
            _ => data.push(option.as_str()),
        }
    }
    Ok(Told { flags, data: data.join(",") })
}

fn mount_one(one: &Mount, target: &Path) -> Result<(), MountError> {
    let Told { flags, data } = told(&one.options)?;
    let failed = |source: io::Error| MountError::Mount {
        kind: one.type_.clone(),
        source_name: one.source.clone(),
        target: target.to_owned(),
        source,
    };
    let kind = if flags.contains(MsFlags::MS_BIND) { None } else { Some(one.type_.as_str()) };
    let (directory, data) = if data.len() > DATA_MAX { shortened(&data)? } else { (None, data) };
    let options = (!data.is_empty()).then_some(data.as_str());
    let made = match directory {
        None => mount(Some(one.source.as_str()), target, kind, flags, options),
        Some(directory) => mount_from(&directory, &one.source, target, kind, flags, options),
    };
    made.map_err(|errno| failed(errno.into()))?;
    // A bind takes these in a second step only.
    let later = flags & (MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    if flags.contains(MsFlags::MS_BIND) && !later.is_empty() {
        let again = later | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(None::<&str>, target, None::<&str>, again, None::<&str>).map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

/// The layers of an image with many lie in one directory: named from there they fit.
fn shortened(data: &str) -> Result<(Option<PathBuf>, String), MountError> {
    let long = || MountError::Long(data.len());
    let mut parts: Vec<String> = data.split(',').map(str::to_owned).collect();
    let lower = parts.iter_mut().find(|part| part.starts_with("lowerdir=")).ok_or_else(long)?;
    let layers: Vec<&str> = lower.trim_start_matches("lowerdir=").split(':').collect();
    let first = layers.first().copied().unwrap_or_default();
    let common = Path::new(first).ancestors().skip(1).find(|directory| {
        let directory = format!("{}/", directory.display());
        layers.iter().all(|layer| layer.starts_with(&directory))
    });
    let directory = common.filter(|directory| directory.as_os_str().len() > 1).ok_or_else(long)?.to_owned();
    let prefix = format!("{}/", directory.display());
    let relative: Vec<&str> = layers.iter().map(|layer| layer.trim_start_matches(&prefix)).collect();
    *lower = format!("lowerdir={}", relative.join(":"));
    let data = parts.join(",");
    if data.len() > DATA_MAX { Err(MountError::Long(data.len())) } else { Ok((Some(directory), data)) }
}

/// With another working directory, which is a thread's own for that.
fn mount_from(
    directory: &Path,
    source: &str,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> nix::Result<()> {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(directory)?;
            mount(Some(source), target, kind, flags, options)
        });
        made.join().unwrap_or(Err(nix::Error::EIO))
    })
}

#[cfg(test)]
mod tests;
