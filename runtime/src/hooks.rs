//! The hooks of the host: when each list runs, and what its failure means.
//!
//!   create: VM and container are there ─▶ prestart ─▶ createRuntime ─▶ createContainer ─▶ created      failed: undone
//!   start: the program runs ─▶ poststart                                                    failed: killed
//!   delete: all is gone ─▶ poststop                                                         failed: a warning
//!
//! startContainer runs in the guest (container-init). Each list stops at its first failure, but for poststop's.

use std::{fs::File, io, os::unix::process::CommandExt as _, path::Path, process::Command, time::Duration};

use bulkhead_protocol::hook::{Hook, HookState};
use bulkhead_sys::{chain, hook::HookError, namespace};
use rustix::{
    mount::{MountPropagationFlags, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::{log::Log, spec::Hooks, store::Record};

/// For a hook without a timeout of its own: a caller that waits for the container waits for the hook.
const LONGEST: Duration = Duration::from_secs(600);

/// A hook that could not be started, failed, or took too long.
#[derive(Debug, thiserror::Error)]
#[error("hooks.{list}[{index}] {path}")]
pub struct Failed {
    list: &'static str,
    index: usize,
    path: String,
    source: HookError,
}

/// The hooks of one container, and the state that they read.
#[derive(Debug)]
pub struct Subject<'a> {
    pub hooks: &'a Hooks,
    pub state: HookState,
    /// The hooks' working directory; `/` when it is gone.
    pub bundle: &'a Path,
}

impl<'a> From<&'a Record> for Subject<'a> {
    fn from(record: &'a Record) -> Self {
        let state = HookState {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            bundle: record.bundle.display().to_string(),
            annotations: record.annotations.clone(),
        };
        Self { hooks: &record.hooks, state, bundle: &record.bundle }
    }
}

impl Subject<'_> {
    /// Runs the hooks of a container that is made and not yet reported as created; `pid` is the pid of its proxy.
    ///
    /// # Errors
    /// The first hook that fails: the container must not be.
    pub fn create(&self, pid: u32) -> Result<(), Failed> {
        let state = self.state.json("creating", Some(pid));
        self.run("prestart", &self.hooks.prestart, &state, |_| ())?;
        self.run("createRuntime", &self.hooks.create_runtime, &state, |_| ())?;
        self.run("createContainer", &self.hooks.create_container, &state, |command| confine(command, pid))
    }

    /// Runs the hooks after the program was started.
    ///
    /// # Errors
    /// The first hook that fails: the container must end.
    pub fn poststart(&self, pid: u32) -> Result<(), Failed> {
        self.run("poststart", &self.hooks.poststart, &self.state.json("running", Some(pid)), |_| ())
    }

    /// Runs the hooks after everything was removed. All of them run: a failure is only logged, since nothing is left to undo.
    pub fn poststop(&self, log: &Log) {
        let state = self.state.json("stopped", None);
        for (index, hook) in self.hooks.poststop.iter().enumerate() {
            if let Err(error) = self.one("poststop", index, hook, &state, |_| ()) {
                log.warn(&chain(&error));
            }
        }
    }

    fn run(
        &self,
        list: &'static str,
        hooks: &[Hook],
        state: &[u8],
        prepare: impl Fn(&mut Command),
    ) -> Result<(), Failed> {
        hooks.iter().enumerate().try_for_each(|(index, hook)| self.one(list, index, hook, state, &prepare))
    }

    fn one(
        &self,
        list: &'static str,
        index: usize,
        hook: &Hook,
        state: &[u8],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<(), Failed> {
        let directory = if self.bundle.is_dir() { self.bundle } else { Path::new("/") };
        let runnable = bulkhead_sys::hook::Hook {
            path: &hook.path,
            args: &hook.args,
            env: &hook.env,
            timeout: hook.timeout_within(LONGEST),
        };
        let failed = |source| Failed { list, index, path: hook.path.clone(), source };
        runnable.run(state, directory, prepare).map_err(failed)
    }
}

/// createContainer: a program of the host in those namespaces of the container that are on the host. It has a mount namespace
/// of its own, which ends with it, and the network namespace of the container's proxy.
fn confine(command: &mut Command, pid: u32) {
    let network = File::open(format!("/proc/{pid}/ns/net"));
    let enter = move || -> io::Result<()> {
        // An error of the parent, told by the child: `spawn` answers it.
        let failed = |e: &io::Error| io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO));
        let network = network.as_ref().map_err(failed)?;
        namespace::enter(network, namespace::Kind::Network)?;
        // SAFETY: the child of a fork has one thread, and only its mount namespace and directories stop being shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
    };
    // SAFETY: `enter` makes three system calls and allocates nothing: a path of one byte fits rustix's buffer.
    unsafe { command.pre_exec(enter) };
}

#[cfg(test)]
mod tests;
