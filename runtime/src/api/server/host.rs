//! What the server sets up on the host before there is a VMM: its own process, the cgroup, the share.

use std::fs::File;

use nix::sys::signal::{SigHandler, Signal};
use rustix::{
    fs::{Mode, OFlags},
    process::{Resource, Rlimit, setrlimit},
};

use super::ServerError;
use crate::{
    container::{Creation, CreationRequest},
    log::{Bounded, note, note_in},
    sandbox::{
        SandboxPlan,
        cgroup::{self, Place, bounds::Bounds},
        oom_score,
        share::Share,
    },
    shed,
    store::{Entry, Role, SandboxDir, SandboxRecord, StateDir, names, write_json},
    systemd,
    undo::vacate,
};
use bulkhead_sys::chain;

/// Bytes of any file that the server writes. What it writes is bounded in other ways; this is for what they overlook.
const FILE_MAX: u64 = 16 << 20;

/// What is there before the VMM is.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) share: Share,
    pub(super) bounds: Option<Bounds>,
    /// Of the container that the sandbox is started for.
    pub(super) creation: Creation,
}

impl Host {
    /// To be called while this process has one thread: it moves into a mount namespace of its own.
    pub(super) fn set_up(plan: &SandboxPlan, dir: &SandboxDir, request: &File) -> Result<Self, ServerError> {
        let server = dir.journal().append_self(Role::Server)?;
        let request = CreationRequest::read(request)?;
        let record = SandboxRecord { server, host_container: Some(plan.host_container.clone()) };
        write_json(&dir.join(names::SANDBOX), &record)?;
        if let Some(score) = plan.oom_score_adj {
            oom_score::set_own(score)?;
        }
        let creation = Creation::claim(&plan.root, request, true)?;
        let bounds = plan.cgroup.as_ref().map(|place| bound(place, plan)).transpose()?;
        Ok(Self { share: Share::enter(&dir.join(names::SHARE))?, bounds, creation })
    }
}

/// Sets the limits of the microVM's cgroup.
fn bound(place: &Place, plan: &SandboxPlan) -> Result<Bounds, ServerError> {
    // Nobody goes back: a server that fails here takes the cgroup with it.
    let _ = cgroup::limits::set(&place.path, &plan.limits)?;
    let bounds = Bounds::begin(&place.path, plan.sizes, plan.memory)?;
    if let Some(scope) = &place.scope {
        systemd::follow(scope, &place.path)?;
    }
    Ok(bounds)
}

/// Leaves the session, the working directory and the log of the command that started this process.
pub(super) fn detach(dir: &SandboxDir) -> Result<(), ServerError> {
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
pub(super) fn vacate_cgroup(plan: &SandboxPlan, attached: &[u32]) {
    let Some(Place { path, .. }) = &plan.cgroup else { return };
    let ours = [&[std::process::id()], attached].concat();
    if let Err(error) = vacate(path, &ours) {
        note(&format!("empty cgroup {}: {}", path.display(), chain(&error)));
        return;
    }
    let vacated = Entry::Vacated { path: path.to_owned() };
    let written =
        StateDir::open(&plan.root, &plan.host_container).and_then(|dir| dir.journal().append(&vacated));
    if let Err(error) = written {
        note(&chain(&error));
    }
}
