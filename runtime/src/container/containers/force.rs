//! What the guest does not do by itself.
//!
//!   SIGKILL ─▶ agent ─answered─▶ the process's exit ─▶ done
//!                │                   └─not within `limits::KILL`─┐
//!                ├─the VMM was stopped───────────────────────────┤
//!                ├─no answer within it──────────────────────────┤
//!                └─connection broken, and the VM goes on────────┴▶ the VM is ended: every process in it gets that as its exit
//!
//! On a host SIGKILL needs nobody's consent. Here the guest's agent delivers it, and a guest that is stopped, stuck or hostile
//! does not. The machine itself is what the host can end for sure.

use std::sync::Arc;

use bulkhead_protocol::limits;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use ttrpc::Code;

use super::{
    super::{ContainerError, Exit, TableError, exit::SIGKILL},
    Containers,
};
use crate::sandbox::{
    agent::{Agent, AgentError},
    key::Key,
    standstill::STOPPED,
};

impl Containers {
    pub(crate) async fn kill(
        self: Arc<Self>,
        key: Key,
        signal: u32,
        all: bool,
    ) -> Result<(), ContainerError> {
        self.table().check_alive(&key)?;
        let agent = self.sandbox.agent().await?;
        let told = match signal {
            SIGKILL => self.kill_for_sure(&agent, &key, all).await,
            _ => agent.signal(&key, signal, all).await,
        };
        match told {
            Err(AgentError::Refused { code: Code::NOT_FOUND, .. }) => Err(TableError::Finished.into()),
            other => Ok(other?),
        }
    }

    /// As a runc container dies with its init: what held the streams of a process is gone, so it is killed.
    pub(super) async fn kill_orphan(self: &Arc<Self>, key: &Key) {
        if self.attachments.is_lost(key)
            && self.table().check_alive(key).is_ok()
            && let Ok(agent) = self.sandbox.agent().await
        {
            // The agent says NOT_FOUND when it has ended meanwhile.
            let _ = self.kill_for_sure(&agent, key, false).await;
        }
    }

    /// Whatever the answer, the process ends, or the VM does.
    pub(super) async fn kill_for_sure(
        self: &Arc<Self>,
        agent: &Agent,
        key: &Key,
        all: bool,
    ) -> Result<(), AgentError> {
        // Nobody there can answer.
        if self.sandbox.stands_still() {
            self.sandbox.end(STOPPED).await;
            return Ok(());
        }
        let deadline = Instant::now() + limits::KILL;
        let end = self.table().end_in_guest(key);
        let Ok(told) = timeout_at(deadline, agent.signal(key, SIGKILL, all)).await else {
            let why = format!("the guest's agent did not answer a kill for {:?}", limits::KILL);
            self.sandbox.end(&why).await;
            return Ok(());
        };
        if let Some(end) = end {
            tokio::spawn(self.clone().expect_end(end, deadline));
        }
        told
    }

    async fn expect_end(self: Arc<Self>, mut end: watch::Receiver<Option<Exit>>, deadline: Instant) {
        // A sender that is gone is a process that was deleted.
        if timeout_at(deadline, end.wait_for(Option::is_some)).await.is_err() {
            let why = format!("a killed process of the guest did not end for {:?}", limits::KILL);
            self.sandbox.end(&why).await;
        }
    }

    /// The stream to the agent is broken, mostly because the VM is over, which says more about it.
    pub(super) async fn lost_agent(&self, why: &str) {
        let over = self.sandbox.machine().vmm().wait_over();
        if timeout(limits::SHUTDOWN, over).await.is_err() {
            self.sandbox.end(&format!("lost the guest's agent: {why}")).await;
        }
    }
}
