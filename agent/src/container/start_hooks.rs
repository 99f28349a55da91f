//! startContainer: programs of the container, run by its init just before it becomes the container's own program.
//!
//! They have what that program has: namespaces, user, capabilities, working directory at `/`. What they leave running
//! stays a child of the program, as with runc.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bulkhead_protocol::{hook::StartHooks, limits};

use super::error::{Cause, ContainerError, During};

/// Runs them in order, up to the first that fails.
pub(super) fn run(start: &StartHooks) -> Result<(), ContainerError> {
    let state = start.state.json("created", Some(std::process::id()));
    let deadline = Instant::now() + limits::START_HOOKS;
    for (index, hook) in start.hooks.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        hook.run(&state, Path::new("/"), left, |_| ())
            .map_err(|error| Cause::from(crate::log::chain(&error)))
            .during("run", format_args!("hooks.startContainer[{index}] {}", hook.path))?;
    }
    Ok(())
}
