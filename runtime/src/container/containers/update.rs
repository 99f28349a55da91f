//! Limits of a container that exists: those of the host, of its machine and of the guest change together or not at all.
//!
//!   host's cgroup ─▶ larger machine ─▶ guest's cgroup ─▶ smaller machine
//!
//! The host comes first because what its files said before is at hand: they are set back when a later step fails. The
//! guest restores its own when it refuses.

use std::sync::Arc;

use bulkhead_sys::cgroup_file::Earlier;

use super::{super::ContainerError, Containers};
use crate::{
    log::note,
    sandbox::{
        cgroup::limits::{check, set, set_back},
        key::Key,
        sizing::{Demand, Need},
    },
    spec::{CheckedUpdate, HostLimits},
};

impl Containers {
    /// The machine grows before the limits in the guest do, and shrinks after them.
    pub(crate) async fn update(
        self: Arc<Self>,
        key: Key,
        mut update: CheckedUpdate,
    ) -> Result<(), ContainerError> {
        self.table().check_alive(&key)?;
        let agent = self.sandbox.agent().await?;
        let mut machine = self.sandbox.hold_machine().await;
        if !self.sandbox.is_made_for(&key.container) {
            // The command has warned: what it asks of the host would be asked for others.
            update.host = HostLimits::default();
        }
        let demand = Demand::of(&update.resources, &update.host);
        let need = self.table().need(&key.container, demand).changed_by(demand);
        let before = machine.size();
        if demand.takes_memory_limit_away() {
            machine.lift_memory()?;
        }
        let earlier = self.limit_host(&update.host)?;
        let back = || earlier.into_iter().for_each(set_back);
        if let Err(error) = machine.resize(&agent, before.or_more(need)).await {
            back();
            return Err(error.into());
        }
        if let Err(error) = agent.update(&key, &update.resources).await {
            // Larger than needed does no harm; the update's own error is the one to tell.
            let _ = machine.resize(&agent, before.or_more(Need::default())).await;
            back();
            return Err(error.into());
        }
        self.table().updated(&key.container, demand);
        if need.memory_mib.is_some() {
            machine.limit_memory();
        }
        let resized = machine.resize(&agent, need).await;
        self.sandbox.tell_systemd().await;
        Ok(resized?)
    }

    /// What its files said before; `None` where there is no cgroup.
    fn limit_host(&self, limits: &HostLimits) -> Result<Option<Earlier>, ContainerError> {
        let path = self.sandbox.cgroup().map(|cgroup| cgroup.path.as_path());
        for warning in &check(path, limits)? {
            note(warning);
        }
        Ok(path.map(|path| set(path, limits)).transpose()?)
    }
}
