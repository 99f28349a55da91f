//! The host cgroup of a sandbox: server, VMM and proxies together, so that a caller can account for the pod as a whole.
//!
//! Where the spec's `cgroupsPath` says, else `bulkhead/<id>`, with all controllers that those above can give; with
//! `--systemd-cgroup` a scope of systemd's (`scope`), which makes and removes the directory itself. Only
//! directories that were not there before are ours to remove, and `bulkhead/` itself: each has a line in the journal
//! before it is made.

pub mod bounds;
mod claim;
mod entrance;
pub(crate) mod headroom;
pub mod limits;
pub mod oom;
pub mod scope;

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use bulkhead_protocol::id::ContainerId;

use self::bounds::BoundsError;
use self::claim::refuse_taken;
pub use self::{
    claim::Claim,
    entrance::{Entrance, Place},
};
use crate::{
    store::{Entry, Journal, StateError},
    systemd::{SystemdError, Tree},
};

/// Where the unified hierarchy is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// Holds the cgroups of containers whose spec names none: ours by its name, so whoever is the last in it removes it.
const OWN: &str = "/sys/fs/cgroup/bulkhead";
/// Times that a parent may vanish between its making and its use.
const MAKE_TRIES: u32 = 16;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cgroupsPath {path:?} is not a path below the hierarchy")]
    Path { path: String },
    #[error("cgroupsPath {path:?} is not slice:prefix:name")]
    Systemd { path: String },
    #[error("make cgroup {}", .path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("linux.cgroupsPath: {} is not empty", .path.display())]
    Populated { path: PathBuf },
    #[error("linux.cgroupsPath: {} is that of container {id}", .path.display())]
    Taken { path: PathBuf, id: ContainerId },
    #[error("keep others out of cgroup {}", .path.display())]
    Claim { path: PathBuf, source: io::Error },
    #[error("put process {pid} into cgroup {}", .path.display())]
    Enter { path: PathBuf, pid: u32, source: io::Error },
    #[error(transparent)]
    Unit(#[from] SystemdError),
    #[error("systemd has made the scope, but not as cgroup {}", .path.display())]
    Elsewhere { path: PathBuf },
    #[error("start a process to hold the scope")]
    Holder { source: io::Error },
    /// A limit that the kernel does not take.
    #[error("{field}: set {file} of its cgroup on the host to {value:?}")]
    Limit { field: String, file: &'static str, value: String, source: io::Error },
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    #[error(transparent)]
    Journal(#[from] StateError),
}

/// True when `/sys/fs/cgroup` is the unified hierarchy, which is the only one we use.
pub fn is_unified() -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs(ROOT).is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC)
}

/// The directory for a container: what its spec says, read as the cgroup manager reads it.
///
/// # Errors
/// When the spec's value would leave the hierarchy, or is not of the systemd form when that is asked for.
pub fn resolve(
    cgroups_path: Option<&str>,
    id: &ContainerId,
    systemd: Option<&Tree>,
) -> Result<PathBuf, CgroupError> {
    let given = cgroups_path.filter(|path| !path.is_empty());
    let relative = match (given, systemd) {
        (None, Some(tree)) => systemd_path(&format!(":bulkhead:{id}"), tree)?,
        (None, None) => format!("bulkhead/{id}"),
        (Some(path), Some(tree)) => systemd_path(path, tree)?,
        // crun and runc put a relative path below the hierarchy's root as well.
        (Some(path), None) => path.trim_start_matches('/').to_owned(),
    };
    let plain = Path::new(&relative).components().all(|part| matches!(part, Component::Normal(_)));
    if relative.is_empty() || !plain || relative.contains('\0') {
        return Err(CgroupError::Path { path: cgroups_path.unwrap_or_default().to_owned() });
    }
    Ok(Path::new(ROOT).join(relative))
}

/// `machine-a.slice:libpod:web` → `machine.slice/machine-a.slice/libpod-web.scope`, below the cgroup of that systemd.
fn systemd_path(path: &str, tree: &Tree) -> Result<String, CgroupError> {
    let refuse = || CgroupError::Systemd { path: path.to_owned() };
    let mut parts = path.split(':');
    let (Some(slice), Some(prefix), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(refuse());
    };
    let slice = if slice.is_empty() { tree.slice } else { slice };
    let stem = slice.strip_suffix(".slice").ok_or_else(refuse)?;
    // A slice holds units, no processes.
    if name.is_empty()
        || name.ends_with(".slice")
        || [slice, prefix, name].iter().any(|part| part.contains('/'))
    {
        return Err(refuse());
    }
    let mut expanded = if tree.group.is_empty() { String::new() } else { format!("{}/", tree.group) };
    // `-` is the root slice, which has no directory.
    let stem = if stem == "-" { "" } else { stem };
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]).filter(|(end, _)| *end > 0) {
        expanded.push_str(&stem[..end]);
        expanded.push_str(".slice/");
    }
    let unit = match prefix {
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    };
    Ok(expanded + &unit)
}

/// Makes the directory and its missing parents, and keeps others out until the claim is dropped.
///
/// # Errors
/// The first that cannot be made, with those before it in the journal; or the cgroup is in use.
pub fn make(path: &Path, journal: &Journal) -> Result<Claim, CgroupError> {
    let mut tries = MAKE_TRIES;
    'again: loop {
        tries -= 1;
        let ours = |dir: &&Path| !dir.exists() || *dir == Path::new(OWN);
        let mut missing: Vec<&Path> = path.ancestors().take_while(ours).collect();
        missing.reverse();
        for dir in missing {
            journal.append(&Entry::Cgroup { path: dir.to_owned() })?;
            match fs::create_dir(dir) {
                Ok(()) => {}
                // Another one has just made the same.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir == path => {
                    journal.append(&Entry::Foreign { path: dir.to_owned() })?;
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                // Another container has just removed the parent, as the last in it.
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries > 0 => continue 'again,
                Err(source) => return Err(CgroupError::Make { path: dir.to_owned(), source }),
            }
        }
        enable_controllers(path);
        return Claim::take(path);
    }
}

/// Has every cgroup above give its controllers on, as runc does, so that this one counts all and may limit all. One that
/// has processes of its own refuses, which is the kernel's rule and no error: a limit that needs them is refused later.
fn enable_controllers(path: &Path) {
    let above: Vec<&Path> = path.ancestors().skip(1).take_while(|dir| dir.starts_with(ROOT)).collect();
    for dir in above.into_iter().rev() {
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let (given, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let enabled: Vec<&str> = enabled.split_whitespace().collect();
        for controller in given.split_whitespace().filter(|controller| !enabled.contains(controller)) {
            // One by one: a single refusal must not lose the others.
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

/// Moves a process, with all its threads, into the cgroup.
///
/// # Errors
/// When the kernel refuses, or the process is gone.
pub fn enter(path: &Path, pid: u32) -> Result<(), CgroupError> {
    fs::write(path.join("cgroup.procs"), pid.to_string()).map_err(|source| CgroupError::Enter {
        path: path.to_owned(),
        pid,
        source,
    })
}

/// The cgroup of this process, where the unified hierarchy is mounted.
pub fn own() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let relative = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    is_unified().then(|| Path::new(ROOT).join(relative))
}

/// Takes this process out of the cgroup of a container, as far as it may go: to the root of the hierarchy, else to `home`, in which
/// it was before.
pub fn leave(home: Option<&Path>) {
    let go = |path: &Path| enter(path, std::process::id()).is_ok();
    let _ = go(Path::new(ROOT)) || home.is_some_and(go);
}

#[cfg(test)]
mod tests;
