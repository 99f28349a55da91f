//! Has the host's kernel count an out-of-memory kill of the guest in the container's cgroup on the host. Engines look there:
//! conmon, containerd's shims and kubelet watch its `memory.events`.
//!
//!   processes ─▶ aside/ ─▶ +memory ─▶ oom/ with a small memory.max ◀─ victim, which wants more ─▶ killed, and counted
//!   −memory ─▶ processes back ─▶ both directories removed
//!
//! The counters are the kernel's: nobody can write them. But they count what is below as well, and a kill in a cgroup below
//! costs a small process. A cgroup with processes of its own cannot give memory to those below, so its processes stand
//! aside for that moment; what they use is counted where it was, and the bounds hold.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bulkhead_sys::chain;

use crate::{
    log::note,
    store::Process,
    undo::{CGROUPS_BELOW, remove_cgroup},
};

/// The word after which `main` below is meant.
pub const COMMAND: &str = "oom-victim";

/// Bytes that the victim may have, beside what it had before it came in.
const MAX: usize = 1 << 20;
/// Bytes that it takes: far more, and nothing that a host misses where the limit does not hold.
const WANTED: usize = 16 * MAX;
/// For the kernel to kill it.
const KILLED: Duration = Duration::from_secs(5);
/// Looks at a cgroup whose processes start others.
const ROUNDS: usize = 16;

const PROCS: &str = "cgroup.procs";
const SUBTREE: &str = "cgroup.subtree_control";

#[derive(Debug, thiserror::Error)]
pub enum OomError {
    #[error("start the process that is to be killed")]
    Start { source: io::Error },
    #[error("{step} cgroup {}", .path.display())]
    Cgroup { step: &'static str, path: PathBuf, source: io::Error },
    #[error("processes keep coming into cgroup {}", .path.display())]
    Busy { path: PathBuf },
    #[error("the kernel has spared a process that wanted more than its cgroup {} may have", .path.display())]
    Spared { path: PathBuf },
}

fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> OomError {
    move |source| OomError::Cgroup { step, path: path.to_owned(), source }
}

/// Whether the cgroup counts memory at all.
pub fn is_counted(cgroup: &Path) -> bool {
    let controllers = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    controllers.split_whitespace().any(|name| name == "memory")
}

/// Has one kill counted in `oom` and `oom_kill` of the cgroup's `memory.events`, and in those above. Takes some moves of
/// processes, so some grace periods of RCU.
///
/// # Errors
/// When the kernel refuses a step; the processes are back in the cgroup then.
pub fn count(cgroup: &Path) -> Result<(), OomError> {
    let mut victim = Victim::start()?;
    let aside = Aside::make(cgroup)?;
    let counted = victim.die_in(&aside.victims);
    aside.undo();
    counted
}

/// A cgroup whose processes stand aside.
struct Aside<'a> {
    cgroup: &'a Path,
    processes: PathBuf,
    victims: PathBuf,
}

impl<'a> Aside<'a> {
    fn make(cgroup: &'a Path) -> Result<Self, OomError> {
        let [processes, victims] = CGROUPS_BELOW.map(|name| cgroup.join(name));
        let aside = Self { cgroup, processes, victims };
        let made = aside.enter();
        if made.is_err() {
            aside.undo();
        }
        made.map(|()| aside)
    }

    fn enter(&self) -> Result<(), OomError> {
        fs::create_dir(&self.processes).map_err(failed("make", &self.processes))?;
        move_all(self.cgroup, &self.processes)?;
        fs::write(self.cgroup.join(SUBTREE), "+memory")
            .map_err(failed("give memory to those below", self.cgroup))?;
        fs::create_dir(&self.victims).map_err(failed("make", &self.victims))
    }

    /// What cannot be undone is left to the deletion of the container.
    fn undo(&self) {
        let back = fs::write(self.cgroup.join(SUBTREE), "-memory")
            .map_err(failed("take memory from those below", self.cgroup))
            .and_then(|()| move_all(&self.processes, self.cgroup));
        if let Err(error) = back {
            note(&chain(&error));
        }
        for directory in [&self.victims, &self.processes] {
            if let Err(error) = remove_cgroup(directory) {
                note(&format!("remove cgroup {}: {}", directory.display(), chain(&error)));
            }
        }
    }
}

/// Moves the processes of one cgroup, and those that they start meanwhile.
fn move_all(from: &Path, to: &Path) -> Result<(), OomError> {
    for _ in 0..ROUNDS {
        let text = fs::read_to_string(from.join(PROCS)).map_err(failed("list", from))?;
        if text.is_empty() {
            return Ok(());
        }
        for pid in text.lines() {
            match enter(to, pid) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                entered => entered.map_err(failed("move a process into", to))?,
            }
        }
    }
    Err(OomError::Busy { path: from.to_owned() })
}

/// 0 is a process outside of this one's pid namespace; written, it would mean this process.
fn enter(cgroup: &Path, pid: &str) -> io::Result<()> {
    if pid == "0" { Err(io::ErrorKind::PermissionDenied.into()) } else { fs::write(cgroup.join(PROCS), pid) }
}

/// A process that waits for its end. Without this one it ends as well.
struct Victim(Child);

impl Victim {
    fn start() -> Result<Self, OomError> {
        let started = Command::new("/proc/self/exe")
            .arg0("bulkhead")
            .arg(COMMAND)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        started.map(Self).map_err(|source| OomError::Start { source })
    }

    fn die_in(&mut self, cgroup: &Path) -> Result<(), OomError> {
        let start = |source| OomError::Start { source };
        let process = Process::of(self.0.id()).map_err(start)?;
        let set = |file: &str, value: String| match fs::write(cgroup.join(file), value) {
            // A kernel without swap has no file for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file == "memory.swap.max" => Ok(()),
            set => set.map_err(failed("limit", cgroup)),
        };
        enter(cgroup, &process.pid.to_string()).map_err(failed("move a process into", cgroup))?;
        set("memory.swap.max", "0".to_owned())?;
        set("memory.max", MAX.to_string())?;
        self.0.stdin.take().map_or(Ok(()), |mut go| go.write_all(b"x")).map_err(start)?;
        if !process.wait(Instant::now() + KILLED).map_err(start)? {
            let _ = process.kill();
        }
        let events = fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
        let killed = events.lines().any(|line| line.starts_with("oom_kill ") && line != "oom_kill 0");
        if killed { Ok(()) } else { Err(OomError::Spared { path: cgroup.to_owned() }) }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // The server reaps all its children, so this finds none there.
        let _ = self.0.wait();
    }
}

/// The whole victim: its exit code.
pub fn main() -> u8 {
    let _ = rustix::thread::set_name(c"bulkhead-oom");
    // The server's score may be one that the kernel never kills.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    if io::stdin().read_exact(&mut [0]).is_ok() {
        std::hint::black_box(vec![1_u8; WANTED]);
    }
    0
}

#[cfg(test)]
mod tests;
