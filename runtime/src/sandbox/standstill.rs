//! A VMM that somebody has stopped (SIGSTOP) ends: it runs nothing, answers nobody, and by itself nothing of it would ever say so.
//!
//!   every LOOK ─▶ /proc/PID/stat of its processes ─▶ stopped, twice running ─▶ the VM is ended
//!
//! What pauses a container is its freezer in the guest, and what freezes a pod is the host's cgroup freezer; a debugger makes it a
//! "tracing stop". None of them counts.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Sandbox, vmm::Vmm};

/// Between two looks. So a pod is over within 10 s, with what it takes to end it.
const LOOK: Duration = Duration::from_secs(3);
pub(crate) const STOPPED: &str = "the VMM was stopped by a signal (SIGSTOP)";

/// Ends the VM when it stands still; returns when it is over.
pub(crate) async fn watch(sandbox: Arc<Sandbox>, vmm: Vmm) {
    let looks = async {
        let mut before = false;
        loop {
            sleep(LOOK).await;
            let now = sandbox.stands_still();
            if now && before {
                return sandbox.end(STOPPED).await;
            }
            before = now;
        }
    };
    tokio::select! {
        () = looks => {}
        _ = vmm.wait_over() => {}
    }
}
