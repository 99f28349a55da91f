//! What the server sets up on the host before there is a VMM: its own process, the cgroup, the share.

use std::{fs::File, path::Path};

use nix::sys::signal::{SigHandler, Signal};
use rustix::{
    fs::{Mode, OFlags},
    process::{Resource, Rlimit, setrlimit},
};

use super::ServerError;
use crate::{
    error::chain,
    log::{Bounded, note, note_in},
    sandbox::{
        SandboxPlan,
        cgroup::{self, CgroupError, Claim, bounds::Bounds, scope::Holder},
        oom_score,
        share::Share,
    },
    shed,
    store::{Entry, Journal, Role, StateDir, StateError, names, vacate},
    systemd,
};

/// Bytes of any file that the server writes. What it writes is bounded in other ways; this is for what they overlook.
const FILE_MAX: u64 = 16 << 20;

/// What is there before the VMM is.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) share: Share,
    pub(super) cgroup: Option<(Entrance, Bounds)>,
}

/// What keeps the cgroup until the VMM is inside.
#[derive(Debug)]
pub(super) enum Entrance {
    /// Free of others.
    Claimed { _claim: Claim },
    /// There at all.
    Held { _holder: Holder },
}

impl Host {
    /// To be called while this process has one thread: it moves into a mount namespace of its own.
    pub(super) fn set_up(plan: &SandboxPlan, dir: &StateDir) -> Result<Self, ServerError> {
        let journal = dir.journal();
        journal.append_self(Role::Server)?;
        if let Some(score) = plan.oom_score_adj {
            oom_score::set_own(score)?;
        }
        let cgroup = match &plan.cgroup {
            Some(path) => Some(enter_cgroup(path, plan, &journal)?),
            None => None,
        };
        Ok(Self { share: Share::enter(&dir.join(names::SHARE))?, cgroup })
    }
}

fn enter_cgroup(
    path: &Path,
    plan: &SandboxPlan,
    journal: &Journal,
) -> Result<(Entrance, Bounds), ServerError> {
    let entrance = Entrance::make(path, plan, journal)?;
    journal.append(&Entry::Owned { path: path.to_owned() })?;
    // Nobody goes back: a server that fails here takes the cgroup with it.
    let _ = cgroup::limits::set(path, &plan.limits)?;
    let bounds = Bounds::begin(path, plan.sizes, plan.memory)?;
    if let Some(scope) = &plan.scope {
        systemd::follow(scope, path)?;
    }
    Ok((entrance, bounds))
}

impl Entrance {
    fn make(path: &Path, plan: &SandboxPlan, journal: &Journal) -> Result<Self, CgroupError> {
        let Some(scope) = &plan.scope else {
            return Ok(Self::Claimed { _claim: cgroup::make(path, journal)? });
        };
        let holder = Holder::start()?;
        cgroup::scope::make(path, scope, &plan.id, holder.pid(), journal)?;
        Ok(Self::Held { _holder: holder })
    }
}

/// Leaves the session, the working directory and the log of the command that started this process.
pub(super) fn detach(dir: &StateDir) -> Result<(), ServerError> {
    let failed = ServerError::process("detach from the command");
    rustix::process::setsid().map_err(|e| failed(e.into()))?;
    rustix::process::chdir("/").map_err(|e| failed(e.into()))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| failed(e.into()))?;
    let path = dir.join(names::SERVER_LOG);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(std::io::Error::from);
    let log = opened.and_then(|log| Bounded::new(File::from(log)));
    note_in(log.map_err(|source| ServerError::Log { path, source })?);
    Ok(())
}

/// As `shed::caller`.
pub(super) fn shed() -> Result<(), ServerError> {
    Ok(shed::caller()?)
}

/// Only for this process, so to be called when the VMM runs: that writes the files of the guest's volumes.
pub(super) fn limit_files() -> Result<(), ServerError> {
    let failed = ServerError::process("limit the files that the server writes");
    // SAFETY: SIGXFSZ is ignored; no handler runs. A write beyond the limit fails then, and does not end the server.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map_err(|e| failed(e.into()))?;
    let limit = Rlimit { current: Some(FILE_MAX), maximum: Some(FILE_MAX) };
    setrlimit(Resource::Fsize, limit).map_err(|e| failed(e.into()))
}

/// Nothing that the VMM has started is left in the cgroup: whoever comes into it from now on is not killed by `delete`.
pub(super) fn vacate_cgroup(path: &Path, journal: &Journal, proxies: &[u32]) {
    let ours = [&[std::process::id()], proxies].concat();
    let left = vacate(path, &ours).map_err(|e| StateError::io(format!("empty cgroup {}", path.display()), e));
    if let Err(error) = left.and_then(|()| journal.append(&Entry::Vacated { path: path.to_owned() })) {
        note(&chain(&error));
    }
}
