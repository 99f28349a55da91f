//! The hooks of the host: when each list runs, and what its failure means.
//!
//!   create: VM and container are there ─▶ prestart ─▶ createRuntime ─▶ createContainer ─▶ created      failed: undone
//!   start: the program runs ─▶ poststart                                                    failed: killed
//!   delete: all is gone ─▶ poststop                                                         failed: a warning
//!
//! startContainer runs in the guest (container-init). Each list stops at its first failure, but for poststop's.

use std::{fs::File, io, os::unix::process::CommandExt as _, path::Path, process::Command, time::Duration};

use bulkhead_protocol::hook::{Hook, HookState};
use bulkhead_sys::{hook::HookError, namespace};
use rustix::{
    mount::{MountPropagationFlags, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::{error::chain, log::Log, spec::Hooks};

/// For a hook without a timeout of its own: whoever waits for the container waits for the hook.
const LONGEST: Duration = Duration::from_secs(600);

/// A hook that did not do its work.
#[derive(Debug, thiserror::Error)]
#[error("hooks.{list}[{index}] {path}")]
pub struct Failed {
    list: &'static str,
    index: usize,
    path: String,
    source: HookError,
}

/// Whose hooks, and what they hear of it.
#[derive(Debug)]
pub struct Subject<'a> {
    pub hooks: &'a Hooks,
    pub state: HookState,
    /// The hooks' working directory; `/` when it is gone.
    pub bundle: &'a Path,
}

impl Subject<'_> {
    /// Between the making of a container and its being created; `pid` is that of its proxy.
    ///
    /// # Errors
    /// The first hook that fails: the container must not be.
    pub fn create(&self, pid: u32) -> Result<(), Failed> {
        let state = self.state.json("creating", Some(pid));
        self.run("prestart", &self.hooks.prestart, &state, |_| ())?;
        self.run("createRuntime", &self.hooks.create_runtime, &state, |_| ())?;
        self.run("createContainer", &self.hooks.create_container, &state, |command| confine(command, pid))
    }

    /// After the program was started.
    ///
    /// # Errors
    /// The first hook that fails: the container must end.
    pub fn poststart(&self, pid: u32) -> Result<(), Failed> {
        self.run("poststart", &self.hooks.poststart, &self.state.json("running", Some(pid)), |_| ())
    }

    /// After everything is gone. All of them run; nothing is left that a failure could stop.
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

/// createContainer: a program of the host in the container's namespaces, as far as they are on the host. Its mounts are
/// its own and end with it; its network is that of the process that stands for the container.
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
