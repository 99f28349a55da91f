//! Out-of-memory kills that the guest tells of, as the host's cgroup of the container shows them to engines.
//!
//! One kill in the guest is one on the host, within bounds: kills that come while one is shown are shown as one, and of a
//! guest that tells of more and more `MOST` are shown. The guest says it of its own container alone.

use std::{path::PathBuf, time::Duration};

use bulkhead_protocol::id::ContainerId;
use bulkhead_sys::chain;
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

use crate::{log::note, sandbox::cgroup::oom};

/// Kills of one container that are shown. Engines want to know of the first.
const MOST: u32 = 64;
/// For one to be shown; an exit that waits for it is announced then.
const SHOWN: Duration = Duration::from_secs(10);
/// Between two.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The kills of one container.
#[derive(Debug)]
pub(super) struct Kills {
    container: ContainerId,
    /// On the host.
    cgroup: PathBuf,
    so_far: Mutex<SoFar>,
}

#[derive(Debug, Default)]
struct SoFar {
    /// By the guest.
    told: u64,
    /// On the host.
    shown: u32,
}

impl Kills {
    /// `None` where the host counts no memory.
    pub(super) fn of(container: ContainerId, cgroup: PathBuf) -> Option<Self> {
        oom::is_counted(&cgroup).then(|| Self { container, cgroup, so_far: Mutex::default() })
    }

    /// The guest has counted so many. Returns when the host has counted one more, if it is to.
    pub(super) async fn show(&self, told: u64) {
        let mut so_far = self.so_far.lock().await;
        if told <= so_far.told || so_far.shown >= MOST {
            return;
        }
        so_far.told = told;
        so_far.shown += 1;
        let cgroup = self.cgroup.clone();
        let shown = match timeout(SHOWN, spawn_blocking(move || oom::count(&cgroup))).await {
            Ok(Ok(counted)) => counted.map_err(|error| chain(&error)),
            Ok(Err(panicked)) => Err(panicked.to_string()),
            Err(_) => Err(format!("not within {SHOWN:?}")),
        };
        if let Err(why) = shown {
            note(&format!("show the host that {} was short of memory: {why}", self.container));
        }
    }
}
