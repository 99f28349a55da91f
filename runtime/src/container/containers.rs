//! The containers of one sandbox: in the guest, attached on the host, and known here.
//!
//!   one task per process waits for its exit
//!   one task per attachment waits for the end of its holder, and kills the process then
//!   one task waits for the VM's end, and gives every process that exit
//!
//! What a guest does not do by itself is in `force`. The table and the attachments are two small structs behind a lock each,
//! never held across an await. An operation that must not be cut in half runs `detached`: a client that goes away only
//! drops its answer.

mod create;
mod force;
mod update;

use std::{
    collections::BTreeMap,
    future::Future,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use bulkhead_protocol::{
    agent::{ContainerStatsResponse, ProcessInfo},
    id::{ContainerId, ExecId},
    timeline::Phase,
};
use bulkhead_sys::chain;
use tokio::{io::unix::AsyncFd, sync::Notify, time::sleep};
use ttrpc::Code;

use super::{
    Attachment, ContainerError, ExecPlan, Exit, Stdio, TableError,
    attachment::{Attachments, end_of},
    creation::Creation,
    oom::{Kills, PAUSE},
    status::{Event, Status},
    table::Table,
};
use crate::{
    log::note,
    sandbox::{
        Sandbox,
        agent::{Agent, AgentError},
        key::Key,
        vmm::Over,
    },
    store::{names, write_json},
};

#[derive(Debug)]
pub(crate) struct Containers {
    sandbox: Arc<Sandbox>,
    /// Holds the state directory of each.
    root: PathBuf,
    table: Mutex<Table>,
    attachments: Attachments,
    /// Begun, and not complete.
    creations: Mutex<BTreeMap<ContainerId, Creation>>,
    /// Of those with a cgroup on the host that counts memory.
    kills: Mutex<BTreeMap<ContainerId, Arc<Kills>>>,
    /// A creation was completed once.
    committed: AtomicBool,
    /// Something happened that may end the server: look again.
    changed: Notify,
}

impl Containers {
    pub(crate) fn new(sandbox: Arc<Sandbox>, root: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            sandbox,
            root,
            table: Mutex::default(),
            attachments: Attachments::default(),
            creations: Mutex::default(),
            kills: Mutex::default(),
            committed: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn creations(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Creation>> {
        self.creations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kills(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Kills>>> {
        self.kills.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pid that stands for a process on the host; 0 when none does.
    pub(crate) fn host_pid(&self, key: &Key) -> u32 {
        self.attachments.get(key).map_or(0, |attachment| attachment.process().pid)
    }

    /// Of the attachments that are held: they still take output, or want an answer.
    pub(crate) fn host_pids(&self) -> Vec<u32> {
        self.attachments.host_pids()
    }

    /// Returns when nothing of the sandbox is of use any more: all containers are over, none is being created, and nobody holds
    /// a stream; or the creation that it was started for was aborted.
    pub(crate) async fn until_over(&self) {
        let mut vm = self.sandbox.vm();
        loop {
            let failed = self.sandbox.has_failed();
            let ended = {
                let table = self.table();
                table.is_over() || (failed && table.is_empty())
            };
            let idle = ended && self.creations().is_empty() && self.host_pids().is_empty();
            if idle || self.is_aborted() {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                // The sender is the sandbox's, which is ours.
                _ = vm.changed() => {}
            }
        }
    }

    /// The phases are those of the start of the container that the machine was made for.
    fn mark(&self, key: &Key, phase: Phase) {
        if self.sandbox.is_made_for(&key.container) {
            self.sandbox.timeline().mark(phase);
        }
    }

    /// Ties a process to what holds its streams on the host; answers when the guest is up.
    pub(crate) async fn attach(self: Arc<Self>, key: Key, pid: u32) -> Result<(), ContainerError> {
        let failed = |source| ContainerError::Attach { pid, source };
        let attachment = Attachment::proxy(pid).map_err(failed)?;
        let end = end_of(attachment.pidfd().clone()).map_err(failed)?;
        self.attachments.insert(key.clone(), attachment);
        tokio::spawn(self.clone().watch_attachment(key, end));
        Ok(self.sandbox.guest().await.map(drop)?)
    }

    async fn watch_attachment(self: Arc<Self>, key: Key, end: AsyncFd<Arc<OwnedFd>>) {
        // An error here can only mean that the runtime ends.
        let _ = end.readable().await;
        self.attachments.lost(&key);
        self.kill_orphan(&key).await;
        self.changed.notify_one();
        // Nobody is left who could delete an exec, or ask for its exit.
        if !key.is_init() && self.wait(&key).await.is_ok() {
            let _ = self.delete(key).await;
        }
    }

    /// Interfaces may have come since the container was made, and addresses: docker brings both between create and start.
    async fn update_network(&self, key: &Key, agent: &Agent) -> Result<(), ContainerError> {
        let created = self.table().process(key)?.status == Status::Created;
        if !key.is_init() || !created || !self.sandbox.is_made_for(&key.container) {
            return Ok(());
        }
        let nics = self.sandbox.nics();
        let found = nics.look_again(self.host_pid(key)).await?;
        if let Some(found) = &found {
            self.sandbox.forward().listen(found.namespace()).await;
        }
        self.apply_network(key, agent, found).await
    }

    /// Drops a container or exec, and what it had in the share. Its id is free when the guest has nothing of it any more.
    async fn forget(&self, key: &Key) {
        if key.is_init() {
            let rootfs = self.table().rootfs(&key.container);
            self.sandbox.withdraw(&key.container, rootfs.as_ref()).await;
            self.kills().remove(&key.container);
        }
        self.table().forget(key);
        self.changed.notify_one();
    }

    pub(crate) async fn start(self: Arc<Self>, key: Key) -> Result<u32, ContainerError> {
        let agent = self.sandbox.agent().await?;
        if key.is_init() && self.sandbox.is_made_for(&key.container) {
            // Programs count their CPUs once: all are online from the first instruction on.
            drop(self.sandbox.hold_machine().await);
        }
        self.update_network(&key, &agent).await?;
        let described = self.table().start(&key)?;
        let started = match &described {
            None => agent.start(&key).await,
            Some(plan) => {
                let stdio = self.table().process(&key)?.stdio.for_agent();
                agent.exec(&key, &plan.process, &plan.cgroup, stdio).await
            }
        };
        if let Err(error) = started {
            if !key.is_init() {
                self.forget(&key).await;
            }
            // An init that could not exec has ended; its exit is on its way.
            return Err(error.into());
        }
        if key.is_init() {
            self.mark(&key, Phase::ProcessStarted);
        } else {
            tokio::spawn(self.clone().wait_for_exit(key.clone()));
        }
        self.table().started(&key);
        self.kill_orphan(&key).await;
        Ok(self.host_pid(&key))
    }

    pub(crate) fn describe(
        &self,
        key: &Key,
        exec: &ExecId,
        stdio: Stdio,
        plan: ExecPlan,
    ) -> Result<(), TableError> {
        self.table().describe(key, exec, stdio, plan)
    }

    pub(crate) async fn resize(&self, key: &Key, columns: u32, rows: u32) -> Result<(), ContainerError> {
        self.table().check_alive(key)?;
        Ok(self.sandbox.agent().await?.resize(key, columns, rows).await?)
    }

    pub(crate) async fn processes(&self, key: &Key) -> Result<Vec<ProcessInfo>, ContainerError> {
        self.table().check_alive(key)?;
        Ok(self.sandbox.agent().await?.processes(key).await?)
    }

    pub(crate) async fn pause(self: Arc<Self>, key: Key) -> Result<(), ContainerError> {
        self.table().check_pausable(&key.container)?;
        self.sandbox.agent().await?.pause(&key).await?;
        self.table().frozen(&key.container, Event::Pause);
        Ok(())
    }

    pub(crate) async fn resume(self: Arc<Self>, key: Key) -> Result<(), ContainerError> {
        self.table().check_paused(&key.container)?;
        let guest = self.sandbox.guest().await?;
        // Programs that stood still look at the clock first.
        guest.clock.correct().await;
        guest.agent.resume(&key).await?;
        self.table().frozen(&key.container, Event::Resume);
        Ok(())
    }

    pub(crate) async fn stats(&self, key: &Key) -> Result<ContainerStatsResponse, ContainerError> {
        self.table().check_alive(key)?;
        Ok(self.sandbox.agent().await?.stats(key).await?)
    }

    pub(crate) async fn wait_oom(&self, key: &Key, seen: u64) -> Result<u64, ContainerError> {
        self.table().check_alive(key)?;
        Ok(self.sandbox.agent().await?.wait_oom(key, seen).await?)
    }

    /// What the VMM counts, by name.
    pub(crate) async fn machine_counters(&self) -> Result<Vec<(String, u64)>, ContainerError> {
        Ok(self.sandbox.machine_counters().await?)
    }

    /// Removes what has ended, or was created and never ran; its exit when it has one.
    pub(crate) async fn delete(self: Arc<Self>, key: Key) -> Result<Option<Exit>, ContainerError> {
        self.table().check_deletable(&key)?;
        let exit = self.table().process(&key)?.exit();
        self.remove_from_guest(&key).await?;
        self.attachments.remove(&key);
        self.forget(&key).await;
        Ok(exit)
    }

    async fn remove_from_guest(&self, key: &Key) -> Result<(), AgentError> {
        let Some(agent) = self.sandbox.agent_now() else { return Ok(()) };
        match agent.delete(key).await {
            Ok(()) | Err(AgentError::Refused { code: Code::NOT_FOUND, .. } | AgentError::Broken(_)) => Ok(()),
            // What cannot be deleted may still run, and has its files until the VM is gone.
            Err(error @ AgentError::Silent { .. }) => {
                self.sandbox.end(&format!("delete a container: {error}")).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The exit of a process, when it has come.
    pub(crate) async fn wait(&self, key: &Key) -> Result<Exit, TableError> {
        let mut watch = self.table().watch(key)?;
        let exit = watch.wait_for(Option::is_some).await.map_err(|_| TableError::Deleted)?.clone();
        exit.ok_or(TableError::Deleted)
    }

    /// Shows out-of-memory kills of a container on the host, until it ends.
    fn watch_memory(self: &Arc<Self>, container: &ContainerId) {
        let cgroup = self.creations().get(container).and_then(Creation::cgroup_path);
        let Some(kills) = cgroup.and_then(|path| Kills::of(container.clone(), path)) else { return };
        let kills = Arc::new(kills);
        self.kills().insert(container.clone(), kills.clone());
        tokio::spawn(self.clone().show_kills(container.clone(), kills));
    }

    async fn show_kills(self: Arc<Self>, container: ContainerId, kills: Arc<Kills>) {
        let Ok(agent) = self.sandbox.agent().await else { return };
        let mut seen = 0;
        while let Ok(counted) = agent.wait_oom_patiently(&container, seen).await
            && counted > seen
        {
            seen = counted;
            kills.show(seen).await;
            sleep(PAUSE).await;
        }
    }

    async fn wait_for_exit(self: Arc<Self>, key: Key) {
        let Ok(agent) = self.sandbox.agent().await else { return };
        let exit = match agent.wait(&key).await {
            Ok(answer) => Exit::told(&answer),
            // The VM's end gives every process its exit.
            Err(AgentError::Broken(why)) => return self.lost_agent(&why).await,
            Err(error) => Exit::lost(format!("the guest's agent lost the process: {error}")),
        };
        let kills = if exit.oom_killed { self.kills().get(&key.container).cloned() } else { None };
        if let Some(kills) = kills {
            // An engine looks when the exit is known, and may have been told before.
            kills.show(1).await;
        }
        self.exited(&key, exit);
    }

    fn exited(&self, key: &Key, exit: Exit) {
        if key.is_init() {
            self.mark(key, Phase::ProcessExited);
            self.record_exit(&key.container, &exit);
        }
        self.table().exited(key, exit);
        self.changed.notify_one();
    }

    /// For `state` and `delete` when the server is gone. A disk that is full must not keep the waiters waiting.
    fn record_exit(&self, container: &ContainerId, exit: &Exit) {
        let path = self.root.join(container.as_str()).join(names::EXIT);
        if let Err(error) = write_json(&path, &exit.record()) {
            note(&format!("record the exit: {}", chain(&error)));
        }
    }

    /// Gives every process that has not ended the sandbox's end as its own.
    pub(crate) fn over(&self, over: Over) {
        let exit = Exit::lost(self.sandbox.over(over).to_string());
        let unfinished = self.table().unfinished();
        for container in unfinished {
            self.record_exit(&container, &exit);
        }
        self.table().all_died(&exit);
        self.changed.notify_one();
    }
}

/// Runs to its end even when the client that asked for it goes away.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ContainerError>> + Send + 'static,
) -> Result<T, ContainerError> {
    tokio::spawn(work).await.unwrap_or_else(|source| Err(ContainerError::Broken { source }))
}
