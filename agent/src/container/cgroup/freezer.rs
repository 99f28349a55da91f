//! Freezes and thaws a container's cgroup with all below it.
//!
//! `cgroup.freeze` only asks: a process stops when it next comes to or from user space. `cgroup.events` says when all
//! have, and that change is waited for. A frozen process can still be killed.

use std::{fs, io, path::Path};

use bulkhead_protocol::limits;
use tokio::time::timeout;

use super::watch::Watch;

/// Answers when the kernel says that all processes stand still, or none has to any more.
pub(super) async fn freeze(directory: &Path, frozen: bool) -> io::Result<()> {
    let events = directory.join("cgroup.events");
    // Before the request, so that no change is missed.
    let watch = Watch::new(&events)?;
    request(directory, frozen)?;
    let done = async {
        while is_frozen(&fs::read_to_string(&events)?) != frozen {
            watch.changed().await?;
        }
        Ok(())
    };
    let done = timeout(limits::FREEZE, done).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if done.is_err() && frozen {
        request(directory, false)?;
    }
    done
}

fn request(directory: &Path, frozen: bool) -> io::Result<()> {
    fs::write(directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })
}

fn is_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

#[cfg(test)]
mod tests;
