//! The running sandbox: its containers in the guest, the proxies that stand for them, and its end.
//!
//!   Task API, sandbox API ─▶ Pod ─▶ Agent ─▶ guest            Pod ─▶ Table (what is known)
//!                             ├─ one task per process waits for its exit
//!                             ├─ one task per proxy waits for its death, and kills its process then
//!                             └─ one task waits for the VM's end, and gives every process that exit
//!
//! What a guest does not do by itself is in `force`. The table and the proxies are two small structs behind a lock each,
//! never held across an await. An operation that must not be cut in half runs in a task of its own: a client that goes
//! away only drops its answer.

mod force;
mod update;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::Future,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

use bulkhead_protocol::{
    agent::{ContainerStatsResponse, ProcessInfo},
    id::{ContainerId, ExecId},
    limits,
    timeline::Phase,
    vmm::Request,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, watch},
};
use ttrpc::Code;

use super::{
    agent::{Agent, AgentError},
    cgroup::{self, bounds::Memory},
    clock::Clock,
    expose::expose,
    nics::{Found, Nics, NicsError},
    oom_score,
    plan::{ContainerPlan, ExecPlan},
    resize::Machine,
    share::Share,
    sizing::Demand,
    status::{Event, Status},
    stdio::Stdio,
    table::{Exit, Key, Table, TableError, status},
    timeline::Timeline,
    vmm::{Over, Reason, Vmm, processes::Processes},
};
use crate::{
    error::chain,
    log::note,
    spec::HostLimits,
    store::{ExitRecord, names, write_atomically},
    systemd::{self, Scope},
    time::rfc3339,
};

/// How far the boot has come.
#[derive(Debug, Clone)]
pub(super) enum Boot {
    Pending,
    Up(Agent),
    Failed(String),
}

/// A host process that stands for a process of the guest.
#[derive(Debug, Clone)]
enum Proxy {
    Alive { pid: u32, pidfd: Arc<OwnedFd> },
    Gone,
}

#[derive(Debug)]
pub(super) struct Pod {
    /// The container that the sandbox was made for; others may come to it.
    first: ContainerId,
    /// That of the first container; those of others are beside it.
    state_dir: PathBuf,
    pub(super) timeline: Timeline,
    pub(super) boot: watch::Sender<Boot>,
    /// Set when the guest is up.
    pub(super) clock: OnceLock<Clock>,
    /// Set when there is a VMM.
    pub(super) machine: OnceLock<Machine>,
    /// Of the VMM: what was spawned, and what is in the jail.
    pub(super) vmm_processes: OnceLock<Processes>,
    /// Something happened that may end the server: look again.
    pub(super) changed: Notify,
    /// `None` when the share could not be made private to a test.
    share: Option<Share>,
    cgroup: Option<Group>,
    /// Empty where there is no VMM: in tests.
    nics: OnceLock<Nics>,
    table: Mutex<Table>,
    proxies: Mutex<BTreeMap<Key, Proxy>>,
}

/// The host's cgroup of the first container: the microVM is in it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) path: PathBuf,
    /// As systemd has it.
    pub(super) scope: Option<Scope>,
    /// Those it was made with.
    pub(super) limits: HostLimits,
}

impl Pod {
    pub(super) fn new(
        first: ContainerId,
        state_dir: PathBuf,
        share: Option<Share>,
        cgroup: Option<Group>,
    ) -> Arc<Self> {
        Arc::new(Self {
            first,
            state_dir,
            timeline: Timeline::default(),
            boot: watch::Sender::new(Boot::Pending),
            clock: OnceLock::new(),
            machine: OnceLock::new(),
            vmm_processes: OnceLock::new(),
            changed: Notify::new(),
            share,
            cgroup,
            nics: OnceLock::new(),
            table: Mutex::default(),
            proxies: Mutex::default(),
        })
    }

    /// Gives the pod its network; once, before it serves.
    pub(super) fn connect(&self, nics: Nics) {
        let _ = self.nics.set(nics);
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proxies(&self) -> MutexGuard<'_, BTreeMap<Key, Proxy>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent, as soon as it is up.
    pub(super) async fn agent(&self) -> Result<Agent, ttrpc::Error> {
        let mut boot = self.boot.subscribe();
        let up = boot.wait_for(|boot| !matches!(boot, Boot::Pending)).await.map(|boot| boot.clone());
        match up {
            Ok(Boot::Up(agent)) => Ok(agent),
            Ok(Boot::Failed(why)) => Err(status(Code::UNAVAILABLE, why)),
            Ok(Boot::Pending) | Err(_) => Err(status(Code::UNAVAILABLE, "the sandbox ends")),
        }
    }

    /// The pid that stands for a process on the host; 0 when none does.
    pub(super) fn host_pid(&self, key: &Key) -> u32 {
        match self.proxies().get(key) {
            Some(Proxy::Alive { pid, .. }) => *pid,
            Some(Proxy::Gone) | None => 0,
        }
    }

    /// True when nobody is left who still takes output or wants an answer.
    pub(super) fn has_proxies(&self) -> bool {
        self.proxies().values().any(|proxy| matches!(proxy, Proxy::Alive { .. }))
    }

    /// Of those that live.
    pub(super) fn proxy_pids(&self) -> Vec<u32> {
        let proxies = self.proxies();
        let alive = proxies.values().filter_map(|proxy| match proxy {
            Proxy::Alive { pid, .. } => Some(*pid),
            Proxy::Gone => None,
        });
        alive.collect()
    }

    /// The phases are those of the first container's start.
    fn mark(&self, key: &Key, phase: Phase) {
        if key.container == self.first {
            self.timeline.mark(phase);
        }
    }

    /// Ties a process to the host process `pid`; answers when the guest is up.
    pub(super) async fn attach(self: Arc<Self>, key: Key, pid: u32) -> Result<(), ttrpc::Error> {
        let invalid =
            |e: &dyn std::fmt::Display| status(Code::INVALID_ARGUMENT, format!("attach process {pid}: {e}"));
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| invalid(&"not a pid"))?;
        let pidfd = Arc::new(pidfd_open(raw, PidfdFlags::empty()).map_err(|e| invalid(&e))?);
        // SAFETY: an `OwnedFd` is open and the same until its last owner drops it; the `AsyncFd` is one of them.
        let ended = unsafe { AsyncFd::register_with_interest(pidfd.clone(), Interest::READABLE) }
            .map_err(|e| invalid(&e))?;
        self.proxies().insert(key.clone(), Proxy::Alive { pid, pidfd });
        tokio::spawn(self.clone().watch_proxy(key, ended));
        self.agent().await.map(drop)
    }

    async fn watch_proxy(self: Arc<Self>, key: Key, ended: AsyncFd<Arc<OwnedFd>>) {
        // An error here can only mean that the runtime ends.
        let _ = ended.readable().await;
        self.proxies().insert(key.clone(), Proxy::Gone);
        self.kill_orphan(&key).await;
        self.changed.notify_one();
        // Nobody is left who could delete an exec, or ask for its exit.
        if key.exec.is_some() && self.wait(&key).await.is_ok() {
            let _ = self.delete(key).await;
        }
    }

    /// Its proxy was there and has died.
    fn is_orphan(&self, key: &Key) -> bool {
        matches!(self.proxies().get(key), Some(Proxy::Gone))
    }

    pub(super) async fn create(
        self: Arc<Self>,
        key: Key,
        plan: ContainerPlan,
        stdio: Stdio,
    ) -> Result<u32, ttrpc::Error> {
        self.table().reserve(&key.container, plan.bundle.clone(), plan.exports.clone(), stdio.clone())?;
        match self.make(&key, &plan, &stdio).await {
            Ok(()) => {
                self.mark(&key, Phase::ContainerCreated);
                tokio::spawn(self.clone().wait_for_exit(key.clone()));
                // Its proxy may have died while it was made.
                self.kill_orphan(&key).await;
                Ok(self.host_pid(&key))
            }
            Err(error) => {
                self.forget(&key).await;
                Err(error)
            }
        }
    }

    async fn make(&self, key: &Key, plan: &ContainerPlan, stdio: &Stdio) -> Result<(), ttrpc::Error> {
        let guest = match &self.share {
            Some(share) => {
                let caller = self.caller(key)?;
                expose(share, plan, caller.as_deref()).map_err(|e| status(Code::ABORTED, chain(&e)))?
            }
            None => Cow::Borrowed(&plan.guest),
        };
        // While the guest boots.
        let (agent, found) = tokio::join!(self.agent(), self.prepare_network(key));
        let (agent, found) = (agent?, found?);
        self.enter_cgroup(key)?;
        let whole = self.cgroup.as_ref().filter(|_| key.container == self.first).map(|group| &group.limits);
        let demand = Demand::of(&plan.guest.resources, whole.unwrap_or(&HostLimits::default()));
        if key.container != self.first {
            self.make_room(&agent, demand).await?;
            self.raise_oom_score(plan)?;
        }
        agent.create(key, &guest, stdio.for_agent()).await?;
        if let Some((nics, found)) = self.nics.get().zip(found) {
            nics.apply(&agent, &key.container, found).await.map_err(|e| refused(&e))?;
        }
        Ok(self.table().made(&key.container, demand)?)
    }

    /// Who made a further container; the first one's caller made this server.
    fn caller(&self, key: &Key) -> Result<Option<Arc<OwnedFd>>, ttrpc::Error> {
        match self.proxies().get(key) {
            _ if key.container == self.first => Ok(None),
            Some(Proxy::Alive { pidfd, .. }) => Ok(Some(pidfd.clone())),
            Some(Proxy::Gone) | None => {
                Err(status(Code::FAILED_PRECONDITION, "who would stand for the container is gone"))
            }
        }
    }

    /// Moves this server and the proxy of the first container into its cgroup, where the VMM is. Not earlier: they have opened
    /// what they need of the host's devices now, and the cgroup may forbid them all (podman's pods do, with cgroupfs).
    fn enter_cgroup(&self, key: &Key) -> Result<(), ttrpc::Error> {
        let Some(cgroup) = self.cgroup.as_ref().filter(|_| key.container == self.first) else {
            return Ok(());
        };
        for pid in [std::process::id(), self.host_pid(key)] {
            cgroup::enter(&cgroup.path, pid).map_err(|e| status(Code::INTERNAL, chain(&e)))?;
        }
        Ok(())
    }

    /// The pod is spared by the host's OOM killer no more than any of its containers.
    fn raise_oom_score(&self, plan: &ContainerPlan) -> Result<(), ttrpc::Error> {
        let Some(score) = plan.guest.process.oom_score_adj else { return Ok(()) };
        let vmm = self.vmm_processes.get().map(Processes::all).unwrap_or_default();
        oom_score::raise(score, &vmm).map_err(|e| status(Code::ABORTED, chain(&e)))
    }

    /// For a container that comes to a sandbox which has others.
    async fn make_room(&self, agent: &Agent, demand: Demand) -> Result<(), ttrpc::Error> {
        let machine = self.machine.get().ok_or_else(|| status(Code::UNAVAILABLE, "the sandbox ends"))?;
        let mut machine = machine.hold().await;
        let size = machine.size();
        if demand.memory() == Memory::Unlimited {
            machine.lift_memory().map_err(|error| status(Code::ABORTED, chain(&error)))?;
        }
        let need = demand.beside(size.memory_mib, size.vcpus);
        let resized = machine.resize(agent, need).await;
        self.tell_systemd().await;
        resized.map_err(|error| status(Code::ABORTED, chain(&error)))
    }

    /// The unit keeps what the files of the cgroup say. They hold as they are, until systemd writes them anew.
    async fn tell_systemd(&self) {
        let Some(group) = &self.cgroup else { return };
        let Some(scope) = &group.scope else { return };
        let (scope, path) = (scope.clone(), group.path.clone());
        let told = tokio::task::spawn_blocking(move || systemd::follow(&scope, &path)).await;
        if let Ok(Err(error)) = told {
            note(&chain(&error));
        }
    }

    /// What there is of a network that was given by its path. It is that of the first container, and of those that
    /// share its namespace.
    async fn prepare_network(&self, key: &Key) -> Result<Option<Found>, ttrpc::Error> {
        match self.nics.get().filter(|_| key.container == self.first) {
            Some(nics) => nics.prepare().await.map_err(|e| refused(&e)),
            None => Ok(None),
        }
    }

    /// Interfaces may have come since the container was made, and addresses: docker brings both between create and start.
    async fn update_network(&self, key: &Key, agent: &Agent) -> Result<(), ttrpc::Error> {
        let created = self.table().process(key)?.status == Status::Created;
        if key.exec.is_none()
            && key.container == self.first
            && created
            && let Some(nics) = self.nics.get()
            && let Some(found) = nics.look_again(self.host_pid(key)).await.map_err(|e| refused(&e))?
        {
            nics.apply(agent, &key.container, found).await.map_err(|e| refused(&e))?;
        }
        Ok(())
    }

    /// Drops a container or exec, and what it had in the share. Its id is free when the guest has nothing of it any more.
    async fn forget(&self, key: &Key) {
        if key.exec.is_none() {
            self.withdraw(key).await;
        }
        self.table().forget(key);
        self.changed.notify_one();
    }

    /// The guest has unmounted it, but its kernel may keep files, and a hostile one what it likes: the VMM closes them.
    async fn withdraw(&self, key: &Key) {
        let exports = self.table().exports(&key.container);
        if let Some(share) = &self.share {
            for export in exports.iter().rev() {
                share.remove(export);
            }
        }
        let up = matches!(*self.boot.borrow(), Boot::Up(_));
        if let Some(machine) = self.machine.get().filter(|_| up) {
            let directory = key.container.to_string();
            let revoked =
                machine.vmm().call(Request::Revoke { directory }, Vec::new(), limits::CONTROL).await;
            if let Err(error) = revoked {
                note(&format!("take the files of {} from the guest: {}", key.container, chain(&error)));
            }
        }
    }

    pub(super) async fn start(self: Arc<Self>, key: Key) -> Result<u32, ttrpc::Error> {
        let agent = self.agent().await?;
        self.update_network(&key, &agent).await?;
        let described = self.table().start(&key)?;
        let started = match &described {
            None => agent.start(&key).await,
            Some(plan) => {
                let stdio = self.table().process(&key)?.stdio.for_agent();
                agent.exec(&key, plan, stdio).await
            }
        };
        if let Err(error) = started {
            if key.exec.is_some() {
                self.forget(&key).await;
            }
            // An init that could not exec has ended; its exit is on its way.
            return Err(error.into());
        }
        if key.exec.is_none() {
            self.mark(&key, Phase::ProcessStarted);
        } else {
            tokio::spawn(self.clone().wait_for_exit(key.clone()));
        }
        self.table().started(&key);
        self.kill_orphan(&key).await;
        Ok(self.host_pid(&key))
    }

    pub(super) fn describe(
        &self,
        key: &Key,
        exec: &ExecId,
        stdio: Stdio,
        plan: ExecPlan,
    ) -> Result<(), TableError> {
        self.table().describe(key, exec, stdio, plan)
    }

    pub(super) async fn resize(&self, key: &Key, columns: u32, rows: u32) -> Result<(), ttrpc::Error> {
        self.table().check_alive(key)?;
        Ok(self.agent().await?.resize(key, columns, rows).await?)
    }

    pub(super) async fn processes(&self, key: &Key) -> Result<Vec<ProcessInfo>, ttrpc::Error> {
        self.table().check_alive(key)?;
        Ok(self.agent().await?.processes(key).await?)
    }

    pub(super) async fn pause(self: Arc<Self>, key: Key) -> Result<(), ttrpc::Error> {
        self.table().check_pausable(&key.container)?;
        self.agent().await?.pause(&key).await?;
        self.table().frozen(&key.container, Event::Pause);
        Ok(())
    }

    pub(super) async fn resume(self: Arc<Self>, key: Key) -> Result<(), ttrpc::Error> {
        self.table().check_paused(&key.container)?;
        let agent = self.agent().await?;
        // Programs that stood still look at the clock first.
        if let Some(clock) = self.clock.get() {
            clock.correct().await;
        }
        agent.resume(&key).await?;
        self.table().frozen(&key.container, Event::Resume);
        Ok(())
    }

    pub(super) async fn stats(&self, key: &Key) -> Result<ContainerStatsResponse, ttrpc::Error> {
        self.table().check_alive(key)?;
        Ok(self.agent().await?.stats(key).await?)
    }

    pub(super) async fn wait_oom(&self, key: &Key, seen: u64) -> Result<u64, ttrpc::Error> {
        self.table().check_alive(key)?;
        Ok(self.agent().await?.wait_oom(key, seen).await?)
    }

    /// Removes what has ended, or was created and never ran; its exit when it has one.
    pub(super) async fn delete(self: Arc<Self>, key: Key) -> Result<Option<Exit>, ttrpc::Error> {
        self.table().check_deletable(&key)?;
        let exit = self.table().process(&key)?.exit();
        let boot = self.boot.borrow().clone();
        if let Boot::Up(agent) = boot {
            match agent.delete(&key).await {
                Ok(()) | Err(AgentError::Refused { code: Code::NOT_FOUND, .. } | AgentError::Broken(_)) => {}
                // What cannot be deleted may still run, and has its files until the VM is gone.
                Err(error @ AgentError::Silent { .. }) => {
                    self.end(&format!("delete a container: {error}")).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.proxies().remove(&key);
        self.forget(&key).await;
        Ok(exit)
    }

    /// The exit of a process, when it has come.
    pub(super) async fn wait(&self, key: &Key) -> Result<Exit, ttrpc::Error> {
        let mut watch = self.table().watch(key)?;
        let gone = || status(Code::NOT_FOUND, "process was deleted");
        let exit = watch.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
        exit.ok_or_else(gone)
    }

    async fn wait_for_exit(self: Arc<Self>, key: Key) {
        let Ok(agent) = self.agent().await else { return };
        let exit = match agent.wait(&key).await {
            Ok(answer) => Exit {
                code: answer.code.min(255),
                signal: answer.signal.min(127),
                stdout_bytes: answer.stdout_bytes,
                stderr_bytes: answer.stderr_bytes,
                oom_killed: answer.oom_killed,
                at: SystemTime::now(),
                failure: None,
            },
            // The VM's end gives every process its exit.
            Err(AgentError::Broken(why)) => return self.lost_agent(&why).await,
            Err(error) => died(format!("the guest's agent lost the process: {error}")),
        };
        self.exited(&key, exit);
    }

    fn exited(&self, key: &Key, exit: Exit) {
        if key.exec.is_none() {
            self.mark(key, Phase::ProcessExited);
            self.record_exit(&key.container, &exit);
        }
        self.table().exited(key, exit);
        self.changed.notify_one();
    }

    /// For `state` and `delete` when the server is gone. A disk that is full must not keep the waiters waiting.
    fn record_exit(&self, container: &ContainerId, exit: &Exit) {
        let record = ExitRecord {
            code: exit.code,
            signal: exit.signal,
            exited_at: rfc3339(exit.at),
            sandbox_failure: exit.failure.clone(),
        };
        let written = serde_json::to_vec(&record).map_err(|e| e.to_string()).and_then(|json| {
            let first = container == &self.first;
            let dir = if first {
                self.state_dir.clone()
            } else {
                self.state_dir.with_file_name(container.as_str())
            };
            write_atomically(&dir.join(names::EXIT), &json).map_err(|e| chain(&e))
        });
        if let Err(why) = written {
            note(&format!("record the exit: {why}"));
        }
    }

    /// The sandbox is of no use any more.
    pub(super) fn fail(&self, why: &str) {
        self.boot.send_if_modified(|boot| {
            let first = !matches!(boot, Boot::Failed(_));
            if first {
                *boot = Boot::Failed(why.to_owned());
            }
            first
        });
        self.changed.notify_one();
    }

    /// Gives every process that has not ended the sandbox's end as its own.
    pub(super) fn over(&self, mut over: Over) {
        let killed = self.machine.get().is_some_and(Machine::was_killed_for_memory);
        if over.reason == Reason::Died && killed {
            over.reason = Reason::Ended("the host's OOM killer ended the VMM".to_owned());
        }
        let why = over.to_string();
        // While it boots, `boot` sees the same end and says more about it.
        if !matches!(*self.boot.borrow(), Boot::Pending) {
            self.fail(&why);
        }
        let exit = died(why);
        let unfinished = self.table().unfinished();
        for container in unfinished {
            self.record_exit(&container, &exit);
        }
        self.table().all_died(&exit);
        self.changed.notify_one();
    }

    /// Ends the VM. The guest is not asked: with its containers gone it holds nothing that matters, for virtio-fs has
    /// no writeback cache here, and every file was flushed when its last user ended. The caller kills what does not end.
    pub(super) async fn stop(&self, vmm: &Vmm) {
        let stopped = async {
            let _ = vmm.call(Request::Stop, Vec::new(), limits::CONTROL).await;
            vmm.wait_over().await
        };
        let _ = tokio::time::timeout(limits::SHUTDOWN, stopped).await;
    }

    /// Leaves no mount behind in this process's namespace.
    pub(super) fn unmount_share(&self) {
        if let Some(share) = &self.share {
            share.unmount();
        }
    }
}

fn refused(error: &NicsError) -> ttrpc::Error {
    status(Code::ABORTED, chain(error))
}

fn died(why: String) -> Exit {
    Exit {
        code: 0,
        signal: force::SIGKILL,
        stdout_bytes: 0,
        stderr_bytes: 0,
        oom_killed: false,
        at: SystemTime::now(),
        failure: Some(why),
    }
}

/// Runs to its end even when the client that asked for it goes away.
pub(super) async fn uncut<T: Send + 'static>(
    work: impl Future<Output = Result<T, ttrpc::Error>> + Send + 'static,
) -> Result<T, ttrpc::Error> {
    tokio::spawn(work).await.unwrap_or_else(|e| Err(status(Code::INTERNAL, e)))
}
