//! One container's actor: it alone changes the container's state, one command at a time.
//!
//! ```text
//!            start              exit of init            delete
//!   created ───────▶ starting ───────▶ running ───────▶ stopped ───────▶ (gone)
//!      └──────────────────────── delete: killed first ────────────────────▲
//! ```
//!
//! What lasts (the exec of a parked init, a further process, a wait) runs in a task of its own and comes back as an
//! event, so a kill is never behind a slow exec.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use bulkhead_protocol::{
    container::Resources,
    id::{ContainerId, ExecId},
    limits,
};
use bulkhead_sys::pidfd::by_number;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    command::{Command, ExecOrder, OomHandle, Reply, WaitHandle},
    error::SandboxError,
    members,
    registry::Reservation,
    shared::Shared,
};
use crate::{
    container::{self, ContainerError, Created, InUse, ParkedInit, Running, stats},
    process::{Process, Role, SignalNumber, list},
    reaper::Expecting,
    stdio::Wiring,
};

/// For a killed process to be gone, and its cgroup to be empty. Generous: a process in a slow device wait takes long.
const KILLED: Duration = Duration::from_secs(10);

/// What comes back from the actor's own tasks.
#[derive(Debug)]
enum Event {
    Released { result: Result<(), ContainerError>, reply: Reply<u32> },
    Frozen { result: io::Result<()>, reply: Reply<()> },
    Execed { id: ExecId, result: Result<Process, SandboxError>, reply: Reply<u32> },
}

#[derive(Debug)]
enum Gate {
    Parked(ParkedInit),
    Releasing,
    Open,
}

#[derive(Debug)]
enum Exec {
    Starting,
    Made(Process),
}

#[derive(Debug)]
pub(super) struct Actor {
    container: Arc<Running>,
    init: Process,
    gate: Gate,
    /// A freeze or thaw is under way.
    freezing: bool,
    execs: HashMap<ExecId, Exec>,
    volumes: InUse,
    shared: Shared,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
}

impl Actor {
    /// Takes over what `container::create` has made. On an error nothing of it is left running.
    pub(super) fn adopt(
        id: ContainerId,
        created: Created,
        wiring: Wiring,
        expecting: &Expecting,
        shared: Shared,
    ) -> Result<Self, SandboxError> {
        let Created { pid, pidfd, cgroup, gate, pty_master, confinement, uid_mappings, volumes } = created;
        // A gate that is dropped on the way out ends the init.
        let stdio = wiring.connect(pty_master).map_err(SandboxError::io("connect stdio"))?;
        let exit =
            expecting.claim(pid, pidfd.as_fd()).map_err(SandboxError::io("watch the container's init"))?;
        let for_signals = pidfd.try_clone().map_err(SandboxError::io("copy a pidfd"))?;
        let container = Arc::new(Running { id, pid, pidfd, cgroup, confinement, uid_mappings });
        let init = Process::supervise(pid, for_signals, exit, stdio, container.clone(), Role::Init);
        let gate = Gate::Parked(gate);
        let (freezing, execs, events) = (false, HashMap::new(), mpsc::channel(16));
        Ok(Self { container, init, gate, freezing, execs, volumes, shared, events })
    }

    /// Runs until the container is deleted. A reply that nobody waits for any more is dropped on purpose.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>, reservation: Reservation) {
        loop {
            tokio::select! {
                Some(event) = self.events.1.recv() => self.settle(event),
                command = inbox.recv() => match command {
                    Some(Command::Delete { reply }) => {
                        let deleted = self.delete().await;
                        let done = deleted.is_ok();
                        if done {
                            // The id is free before the caller hears that it is, and what the host takes away is not mounted.
                            std::mem::take(&mut self.volumes).let_go().await;
                            drop((inbox, self, reservation));
                            let _ = reply.send(deleted);
                            return;
                        }
                        let _ = reply.send(deleted);
                    }
                    Some(command) => self.dispatch(command),
                    None => return,
                },
            }
        }
    }

    fn dispatch(&mut self, command: Command) {
        match command {
            Command::Start { reply } => self.start(reply),
            Command::Exec { id, order, reply } => self.exec(id, order, reply),
            Command::Signal { exec, signal, reply } => {
                let _ = reply.send(self.signal(exec.as_ref(), signal));
            }
            Command::SignalAll { signal, reply } => {
                let _ = reply.send(self.signal_all(signal));
            }
            Command::Wait { exec, reply } => {
                let waiting = self.process(exec.as_ref()).map(|process| WaitHandle(Box::pin(process.wait())));
                let _ = reply.send(waiting);
            }
            Command::Resize { exec, columns, rows, reply } => {
                let _ = reply.send(self.resize(exec.as_ref(), columns, rows));
            }
            Command::Init { reply } => {
                let _ = reply.send(self.init());
            }
            Command::Network { reply } => {
                let _ = reply.send(self.network());
            }
            Command::List { reply } => {
                let _ = reply.send(self.list());
            }
            Command::Freeze { frozen, reply } => self.freeze(frozen, reply),
            Command::Update { resources, reply } => {
                let _ = reply.send(self.update(&resources));
            }
            Command::Stats { reply } => {
                let _ = reply.send(self.alive().map(|()| stats::read(&self.container)));
            }
            Command::WaitOom { seen, patient, reply } => {
                let _ = reply.send(self.wait_oom(seen, patient));
            }
            Command::DeleteProcess { exec, reply } => {
                let _ = reply.send(self.delete_process(&exec));
            }
            Command::Delete { .. } => unreachable!("`run` takes deletes itself, for they end the actor"),
        }
    }

    fn start(&mut self, reply: Reply<u32>) {
        if self.init.exited().is_some() {
            let _ = reply.send(Err(SandboxError::StartAfterExit));
            return;
        }
        match std::mem::replace(&mut self.gate, Gate::Releasing) {
            Gate::Parked(init) => {
                let events = self.events.0.clone();
                tokio::spawn(async move {
                    let result = init.release().await;
                    let _ = events.send(Event::Released { result, reply }).await;
                });
            }
            unparked @ (Gate::Releasing | Gate::Open) => {
                self.gate = unparked;
                let _ = reply.send(Err(SandboxError::StartedAlready));
            }
        }
    }

    fn exec(&mut self, id: ExecId, order: ExecOrder, reply: Reply<u32>) {
        if let Err(refused) = self.may_exec(&id) {
            let _ = reply.send(Err(refused));
            return;
        }
        self.execs.insert(id.clone(), Exec::Starting);
        let (container, shared, events) =
            (self.container.clone(), self.shared.clone(), self.events.0.clone());
        tokio::spawn(async move {
            let result = exec(container, shared, &order).await;
            let _ = events.send(Event::Execed { id, result, reply }).await;
        });
    }

    fn may_exec(&self, id: &ExecId) -> Result<(), SandboxError> {
        if self.init.exited().is_some() {
            return Err(SandboxError::ExecAfterExit);
        }
        if self.execs.contains_key(id) {
            return Err(SandboxError::ProcessExists(id.clone()));
        }
        if self.execs.len() >= limits::EXECS {
            return Err(SandboxError::TooManyProcesses);
        }
        Ok(())
    }

    fn alive(&self) -> Result<(), SandboxError> {
        if self.init.exited().is_some() { Err(SandboxError::NotRunning) } else { Ok(()) }
    }

    fn freeze(&mut self, frozen: bool, reply: Reply<()>) {
        let refused = match self.gate {
            Gate::Parked(_) | Gate::Releasing => Err(SandboxError::NotRunning),
            Gate::Open if self.freezing => Err(SandboxError::Freezing),
            Gate::Open => self.alive(),
        };
        if refused.is_err() {
            let _ = reply.send(refused);
            return;
        }
        self.freezing = true;
        let (container, events) = (self.container.clone(), self.events.0.clone());
        tokio::spawn(async move {
            let result = container.cgroup.freeze(frozen).await;
            let _ = events.send(Event::Frozen { result, reply }).await;
        });
    }

    fn update(&self, resources: &Resources) -> Result<(), SandboxError> {
        self.alive()?;
        Ok(self.container.cgroup.update(resources)?)
    }

    fn wait_oom(&self, seen: u64, patient: bool) -> Result<OomHandle, SandboxError> {
        self.alive()?;
        let watch =
            self.container.cgroup.watch_oom().map_err(SandboxError::io("watch the container's memory"))?;
        let (container, exit) = (self.container.clone(), self.init.wait());
        // A cgroup that is gone has counted what was seen.
        let kills = move || container.cgroup.oom_kills().unwrap_or(seen);
        Ok(OomHandle(Box::pin(async move {
            let more = async { while kills() <= seen && watch.changed().await.is_ok() {} };
            tokio::select! {
                () = more => {}
                _ = exit => {}
                () = sleep(limits::OOM_POLL), if !patient => {}
            }
            kills()
        })))
    }

    fn settle(&mut self, event: Event) {
        match event {
            Event::Frozen { result, reply } => {
                self.freezing = false;
                let _ = reply.send(result.map_err(SandboxError::io("freeze or thaw the container")));
            }
            Event::Released { result, reply } => {
                self.gate = Gate::Open;
                let _ = reply.send(result.map(|()| self.init.pid).map_err(SandboxError::from));
            }
            Event::Execed { id, result, reply } => {
                let answer = match result {
                    Ok(process) => {
                        let pid = process.pid;
                        self.execs.insert(id, Exec::Made(process));
                        Ok(pid)
                    }
                    Err(error) => {
                        self.execs.remove(&id);
                        Err(error)
                    }
                };
                let _ = reply.send(answer);
            }
        }
    }

    fn signal(&self, exec: Option<&ExecId>, signal: SignalNumber) -> Result<(), SandboxError> {
        let process = self.process(exec)?;
        let over = || if exec.is_none() { SandboxError::NotRunning } else { SandboxError::Finished };
        if process.exited().is_some() {
            return Err(over());
        }
        process.signal(signal).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => over(),
            _ => SandboxError::Io { step: "send a signal", source: error },
        })
    }

    fn signal_all(&self, signal: SignalNumber) -> Result<(), SandboxError> {
        if signal == SignalNumber::KILL {
            return self.container.cgroup.kill_all().map_err(SandboxError::io("kill the container's cgroup"));
        }
        members::signal(&self.container.cgroup, signal)
            .map_err(SandboxError::io("list the container's processes"))
    }

    fn resize(&self, exec: Option<&ExecId>, columns: u16, rows: u16) -> Result<(), SandboxError> {
        self.process(exec)?.resize(columns, rows).map_err(|error| match error.kind() {
            io::ErrorKind::NotConnected => SandboxError::NoTerminal,
            _ => SandboxError::Io { step: "resize the terminal", source: error },
        })
    }

    fn init(&self) -> Result<OwnedFd, SandboxError> {
        self.alive()?;
        self.container.pidfd.try_clone().map_err(SandboxError::io("copy the pidfd of the container's init"))
    }

    fn network(&self) -> Result<File, SandboxError> {
        self.alive()?;
        // The exit is known only when the streams are counted: the number may be another's before.
        let open = |pid| File::open(format!("/proc/{pid}/ns/net"));
        by_number(self.init.pid, self.container.pidfd.as_fd(), open)
            .map_err(|_| SandboxError::NotRunning)?
            .map_err(SandboxError::io("open the container's network namespace"))
    }

    fn list(&self) -> Result<Vec<(list::Info, Option<ExecId>)>, SandboxError> {
        let infos = members::list(&self.container.cgroup)
            .map_err(SandboxError::io("list the container's processes"))?;
        let name = |pid: u32| {
            self.execs.iter().find_map(|(id, exec)| match exec {
                Exec::Made(process) if process.pid == pid => Some(id.clone()),
                Exec::Made(_) | Exec::Starting => None,
            })
        };
        Ok(infos.into_iter().map(|info| (name(info.pid), info)).map(|(name, info)| (info, name)).collect())
    }

    fn delete_process(&mut self, exec: &ExecId) -> Result<(), SandboxError> {
        if self.process(Some(exec))?.exited().is_none() {
            return Err(SandboxError::DeleteRunningProcess);
        }
        self.execs.remove(exec);
        Ok(())
    }

    /// Ends what is left of the container. After an error it is still there, and may be deleted again.
    async fn delete(&mut self) -> Result<(), SandboxError> {
        match self.gate {
            Gate::Parked(_) => {}
            Gate::Releasing | Gate::Open if self.init.exited().is_some() => {}
            Gate::Releasing | Gate::Open => return Err(SandboxError::DeleteRunning),
        }
        let cgroup = &self.container.cgroup;
        cgroup.kill_all().map_err(SandboxError::io("kill the container's cgroup"))?;
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        timeout(KILLED, self.init.wait())
            .await
            .map_err(|_| SandboxError::Io { step: "wait for the killed init", source: late() })?;
        // Killed processes leave a cgroup after they have been reaped, some of them by us: there is no event for
        // "may be removed" that would not also have to be checked again.
        let deadline = Instant::now() + KILLED;
        loop {
            match cgroup.remove() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    sleep(Duration::from_millis(2)).await;
                }
                Err(source) => {
                    return Err(SandboxError::Io { step: "remove the container's cgroup", source });
                }
            }
        }
    }

    fn process(&self, exec: Option<&ExecId>) -> Result<&Process, SandboxError> {
        let Some(id) = exec else { return Ok(&self.init) };
        match self.execs.get(id) {
            Some(Exec::Made(process)) => Ok(process),
            Some(Exec::Starting) | None => Err(SandboxError::NoProcess(id.clone())),
        }
    }
}

async fn exec(container: Arc<Running>, shared: Shared, order: &ExecOrder) -> Result<Process, SandboxError> {
    let ExecOrder { process, cgroup, stdio } = order;
    let (child, wiring) = shared.wire(stdio, process.terminal)?;
    let expecting = shared.reaper.expect_children();
    let spawned = container::exec(&shared.layout, &container, process, cgroup, child).await?;
    let stdio = wiring.connect(spawned.pty_master).map_err(SandboxError::io("connect stdio"))?;
    let exit =
        expecting.claim(spawned.pid, spawned.pidfd.as_fd()).map_err(SandboxError::io("watch the process"))?;
    Ok(Process::supervise(spawned.pid, spawned.pidfd, exit, stdio, container, Role::Exec))
}
