//! startContainer: programs of the container, run by its init just before it becomes the container's own program.
//!
//! They have what that program has: namespaces, user, capabilities, filter of system calls, working directory at `/`. What
//! they leave running stays a child of the program, as with runc. The filter is set in the hook's process alone, just before
//! its exec, so a profile need not allow what it takes to run a hook.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bulkhead_protocol::{hook::StartHooks, limits};
use bulkhead_sys::{chain, hook::Hook};

use super::{
    confinement::Filter,
    error::{Cause, ContainerError, During},
};

/// Runs them in order, up to the first that fails.
pub(super) fn run(start: &StartHooks, filter: Option<&Filter>) -> Result<(), ContainerError> {
    let state = start.state.json("created", Some(std::process::id()));
    let deadline = Instant::now() + limits::START_HOOKS;
    for (index, hook) in start.hooks.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let runnable =
            Hook { path: &hook.path, args: &hook.args, env: &hook.env, timeout: hook.timeout_within(left) };
        runnable
            .run(&state, Path::new("/"), |command| confine(command, filter))
            .map_err(|error| Cause::from(chain(&error)))
            .during("run", format_args!("hooks.startContainer[{index}] {}", hook.path))?;
    }
    Ok(())
}

fn confine(command: &mut Command, filter: Option<&Filter>) {
    if let Some(filter) = filter.cloned() {
        // SAFETY: the closure makes two system calls; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || filter.set()) };
    }
}
