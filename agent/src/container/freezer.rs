//! Freezes and thaws a container's cgroup with all below it.
//!
//! `cgroup.freeze` only asks: a process stops when it next comes to or from user space. `cgroup.events` says when all
//! have, and that change is waited for. A frozen process can still be killed.

use std::{fs, io};

use bulkhead_protocol::limits;
use tokio::time::timeout;

use super::{Cgroup, watch::Watch};

impl Cgroup {
    /// Answers when the kernel says that it is done.
    ///
    /// # Errors
    /// `TimedOut` when a process does not stop; the others go on then.
    pub async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let events = self.path().join("cgroup.events");
        // Before the order, so that no change is missed.
        let watch = Watch::new(&events)?;
        self.order(frozen)?;
        let done = async {
            while is_frozen(&fs::read_to_string(&events)?) != frozen {
                watch.changed().await?;
            }
            Ok(())
        };
        let done =
            timeout(limits::FREEZE, done).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if done.is_err() && frozen {
            self.order(false)?;
        }
        done
    }

    fn order(&self, frozen: bool) -> io::Result<()> {
        fs::write(self.path().join("cgroup.freeze"), if frozen { "1" } else { "0" })
    }
}

fn is_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

#[cfg(test)]
mod tests;
