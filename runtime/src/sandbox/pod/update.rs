//! Limits of a container that exists: those of the host, of its machine and of the guest change together or not at all.
//!
//!   host's cgroup ─▶ larger machine ─▶ guest's cgroup ─▶ smaller machine
//!
//! The host comes first because what its files said before is at hand: they are set back when a later step fails. The
//! guest restores its own when it refuses.

use std::sync::Arc;

use ttrpc::Code;

use super::{
    super::{
        cgroup::limits::{Earlier, check, set},
        resize::ResizeError,
        sizing::{Demand, Need},
        table::{Key, status},
    },
    Pod,
};
use crate::{
    error::chain,
    log::note,
    spec::{CheckedUpdate, HostLimits},
};

impl Pod {
    /// The machine grows before the limits in the guest do, and shrinks after them.
    pub(in super::super) async fn update(
        self: Arc<Self>,
        key: Key,
        mut update: CheckedUpdate,
    ) -> Result<(), ttrpc::Error> {
        self.table().check_alive(&key)?;
        let agent = self.agent().await?;
        let machine = self.machine.get().ok_or_else(|| status(Code::UNAVAILABLE, "the sandbox ends"))?;
        let mut machine = machine.hold().await;
        if key.container != self.first {
            // The command has warned: what it asks of the host would be asked for others.
            update.host = HostLimits::default();
        }
        let demand = Demand::of(&update.resources, &update.host);
        let need = self.table().need(&key.container, demand).changed_by(demand);
        let failed = |error: ResizeError| status(Code::ABORTED, chain(&error));
        let before = machine.size();
        if demand.takes_memory_limit_away() {
            machine.lift_memory().map_err(failed)?;
        }
        let earlier = self.limit_host(&update.host)?;
        let back = || earlier.into_iter().for_each(Earlier::restore);
        if let Err(error) = machine.resize(&agent, before.or_more(need)).await {
            back();
            return Err(failed(error));
        }
        if let Err(error) = agent.update(&key, &update.resources).await {
            // Larger than needed does no harm; the update's own error is the one to tell.
            let _ = machine.resize(&agent, before.or_more(Need::default())).await;
            back();
            return Err(error.into());
        }
        self.table().updated(&key.container, demand);
        let resized = machine.resize(&agent, need).await;
        self.tell_systemd().await;
        resized.map_err(failed)
    }

    /// What its files said before; `None` where there is no cgroup.
    fn limit_host(&self, limits: &HostLimits) -> Result<Option<Earlier>, ttrpc::Error> {
        let path = self.cgroup.as_ref().map(|group| group.path.as_path());
        let lost = check(path, limits).map_err(|e| status(Code::INVALID_ARGUMENT, chain(&e)))?;
        for warning in &lost {
            note(warning);
        }
        let earlier = path.map(|path| set(path, limits));
        earlier.transpose().map_err(|e| status(Code::INVALID_ARGUMENT, chain(&e)))
    }
}
