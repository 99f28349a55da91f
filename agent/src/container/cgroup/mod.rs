//! The container's cgroup: cgroup2 only, one directory each below `bulkhead`, limits written to the parked init.
//!
//!   /sys/fs/cgroup/bulkhead/<id>        processes of the container, limits
//!   /sys/fs/cgroup/bulkhead/<id>/…      whatever the container makes there itself
//!
//! Limits come when the init is parked, not before: the set-up is ours and must not be strangled by them. Which files
//! they go to is the business of `limits`.

mod freezer;
mod limits;
mod pressure;
mod tree;
mod watch;

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use bulkhead_protocol::{container::Resources, id::ContainerId};
use bulkhead_sys::pidfd::by_number;
use rustix::fs::{Mode, OFlags, ResolveFlags};

pub use self::pressure::{Pressure, PressureError};
use self::watch::Watch;
use super::{
    device_filter,
    error::{ContainerError, During},
};

/// The directory that holds those of all containers.
const PARENT: &str = "bulkhead";
const MAKE: &str = "make cgroup";
/// Pids answered for one container.
const PIDS: usize = 1 << 16;

/// The container's own cgroup.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// That of a container, made or not. `base` is the cgroup2 mount.
    pub(super) fn of(base: &Path, id: &ContainerId) -> Self {
        Self { path: base.join(PARENT).join(id.as_str()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory that holds those of all containers, with all controllers that the guest has.
    ///
    /// # Errors
    /// When it cannot be made, or a controller not be enabled.
    pub(super) fn make_parent(base: &Path) -> Result<(), ContainerError> {
        let parent = base.join(PARENT);
        let controllers = fs::read_to_string(base.join("cgroup.controllers")).during(MAKE, base.display())?;
        enable(base, &controllers)?;
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).during(MAKE, parent.display())
            }
            _ => enable(&parent, &controllers),
        }
    }

    /// Makes it, with all controllers that the guest has.
    pub(super) fn make(&self, base: &Path) -> Result<(), ContainerError> {
        let path = &self.path;
        let mut made = fs::create_dir(path);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            Self::make_parent(base)?;
            made = fs::create_dir(path);
        }
        match made {
            // Left by a container that is gone, or the name would be taken in the agent's table; an empty one
            // carries old limits, so it goes first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                tree::remove(path).during("remove old cgroup", path.display())?;
                fs::create_dir(path).during(MAKE, path.display())
            }
            made => made.during(MAKE, path.display()),
        }
    }

    /// The directory, to fork a process into.
    pub(super) fn open(&self) -> Result<OwnedFd, ContainerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).during("open cgroup", self.path.display())
    }

    /// The directory of a cgroup below it, or its own when `below` is empty.
    pub(super) fn open_below(&self, below: &str) -> Result<OwnedFd, ContainerError> {
        let own = self.open()?;
        if below.is_empty() {
            return Ok(own);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&own, below, flags, Mode::empty(), resolve).during("open cgroup", below)
    }

    /// The cgroup that the process is in, opened: this one or one below it.
    ///
    /// # Errors
    /// The process has ended or is elsewhere; or its cgroup is gone, which it may be when the process was just moved.
    pub(super) fn open_that_of(&self, pid: u32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, ContainerError> {
        const STEP: &str = "look for the cgroup of";
        let process = format!("process {pid}");
        let read = |pid| fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let text = by_number(pid, pidfd, read).and_then(|read| read).during(STEP, &process)?;
        let below = self.below(&text).ok_or("it is not in the container's").during(STEP, &process)?;
        self.open_below(below)
    }

    /// The path below this cgroup that /proc/PID/cgroup names (cgroups(7)): `0::/bulkhead/ID[/PATH]`.
    fn below<'t>(&self, text: &'t str) -> Option<&'t str> {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let (parent, path) = path.split_once('/')?;
        let (own, below) = path.split_once('/').unwrap_or((path, ""));
        (parent == PARENT && Path::new(own) == self.path.file_name()?).then_some(below)
    }

    /// Writes the limits and attaches the device rules.
    pub(super) fn limit(&self, resources: &Resources) -> Result<(), ContainerError> {
        limits::write(&self.path, resources)?;
        let directory = self.open()?;
        device_filter::attach(directory.as_fd(), &resources.devices)
    }

    /// Changes the limits that `resources` has, all of them or none: after a failure the earlier values hold again.
    /// Device rules are not touched: they hold from the creation on.
    ///
    /// # Errors
    /// The first limit that cannot be read or set, or that the guest or the memory in use rules out.
    pub fn update(&self, resources: &Resources) -> Result<(), ContainerError> {
        limits::replace(&self.path, resources)
    }

    /// Freezes or thaws it with all below it; answers when the kernel has.
    ///
    /// # Errors
    /// `TimedOut` when a process does not stop; the others go on then.
    pub async fn freeze(&self, frozen: bool) -> io::Result<()> {
        freezer::freeze(&self.path, frozen).await
    }

    /// SIGKILL to every process in it and below.
    pub fn kill_all(&self) -> io::Result<()> {
        gone_is_fine(fs::write(self.path.join("cgroup.kill"), "1"))
    }

    /// Pids in it and below, in the root pid namespace.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let mut listed = Listed(Vec::new());
        tree::walk(&self.path, &mut listed)?;
        Ok(listed.0)
    }

    /// How often the out-of-memory killer took a process of it.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let events = fs::read_to_string(self.path.join("memory.events"))?;
        Ok(event(&events, "oom_kill"))
    }

    /// Sees each further out-of-memory kill.
    pub fn watch_oom(&self) -> io::Result<Watch> {
        Watch::new(&self.path.join("memory.events"))
    }

    /// Removes it and all below it. `EBUSY` while a process is left.
    pub fn remove(&self) -> io::Result<()> {
        tree::remove(&self.path)
    }
}

fn enable(directory: &Path, controllers: &str) -> Result<(), ContainerError> {
    let wanted: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let file = directory.join("cgroup.subtree_control");
    fs::write(&file, wanted.join(" ")).during("enable cgroup controllers in", file.display())
}

/// A cgroup that is gone holds no processes.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

/// Pids of the directories that were entered.
struct Listed(Vec<u32>);

impl tree::Visitor for Listed {
    fn enter(&mut self, directory: &OwnedFd) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let read = |file: OwnedFd| io::read_to_string(fs::File::from(file));
        let opened = rustix::fs::openat(directory, "cgroup.procs", flags, Mode::empty());
        let listed = match opened.map_err(io::Error::from).and_then(read) {
            // ENODEV: removed between open and read. EOPNOTSUPP: a threaded cgroup, whose domain above lists it.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) =>
            {
                String::new()
            }
            listed => listed?,
        };
        // 0 stands for a process that our pid namespace does not show.
        let pids = listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0);
        self.0.extend(pids.take(PIDS - self.0.len()));
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

/// One counter of a flat keyed file.
fn event(events: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    events.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
