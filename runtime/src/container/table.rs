//! What the server knows of its containers and their processes. Pure: no I/O, no waiting, no clock.
//!
//!   Container { init, execs }          each a Process { status, exit }
//!
//! One small struct behind one lock (`Containers::table`), held for the length of one method here and never across an
//! await. Callers ask first (`start` says what to do), do it in the guest, then report back (`started`, `exited`).

use std::{collections::BTreeMap, path::PathBuf};

use bulkhead_protocol::{
    id::{ContainerId, ExecId},
    limits,
};
use tokio::sync::watch;

use super::{
    ExecPlan, Exit, Stdio,
    status::{Event, Status},
};
use crate::{
    sandbox::{
        key::Key,
        sizing::{Demand, Need},
    },
    spec::Export,
};

/// Why a request is refused. The texts are what callers of runc look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    #[error("container with id exists: {0}")]
    ContainerExists(ContainerId),
    #[error("process with id exists: {0}")]
    ExecExists(ExecId),
    #[error("container does not exist: {0}")]
    NoContainer(ContainerId),
    #[error("process does not exist: {0}")]
    NoExec(ExecId),
    #[error("container not running")]
    NotRunning,
    #[error("container not paused")]
    NotPaused,
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    #[error("os: process already finished")]
    Finished,
    #[error("cannot start a process that is {0}")]
    NotCreated(&'static str),
    #[error("cannot delete a process that is {0}")]
    NotStopped(&'static str),
    #[error("process was deleted")]
    Deleted,
    #[error("{what} are limited to {max}")]
    TooMany { what: &'static str, max: usize },
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) status: Status,
    pub(crate) stdio: Stdio,
    exit: watch::Sender<Option<Exit>>,
    /// An exec that was described and not started yet.
    described: Option<ExecPlan>,
}

impl Process {
    fn new(status: Status, stdio: Stdio, described: Option<ExecPlan>) -> Self {
        Self { status, stdio, exit: watch::Sender::new(None), described }
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    fn end(&mut self, exit: Exit) {
        if let Ok(status) = self.status.after(Event::Exit) {
            self.status = status;
            self.exit.send_replace(Some(exit));
        }
    }
}

#[derive(Debug)]
struct Container {
    bundle: PathBuf,
    /// In the share.
    rootfs: Option<Export>,
    /// Its limits, as far as the machine is sized by them; `None` until they are known.
    demand: Option<Demand>,
    init: Process,
    execs: BTreeMap<ExecId, Process>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    containers: BTreeMap<ContainerId, Container>,
}

impl Table {
    fn container(&self, id: &ContainerId) -> Result<&Container, TableError> {
        self.containers.get(id).ok_or_else(|| TableError::NoContainer(id.clone()))
    }

    fn container_mut(&mut self, id: &ContainerId) -> Result<&mut Container, TableError> {
        self.containers.get_mut(id).ok_or_else(|| TableError::NoContainer(id.clone()))
    }

    pub(crate) fn process(&self, key: &Key) -> Result<&Process, TableError> {
        let container = self.container(&key.container)?;
        match &key.exec {
            None => Ok(&container.init),
            Some(exec) => container.execs.get(exec).ok_or_else(|| TableError::NoExec(exec.clone())),
        }
    }

    fn process_mut(&mut self, key: &Key) -> Result<&mut Process, TableError> {
        let container = self.container_mut(&key.container)?;
        match &key.exec {
            None => Ok(&mut container.init),
            Some(exec) => container.execs.get_mut(exec).ok_or_else(|| TableError::NoExec(exec.clone())),
        }
    }

    /// Takes the id for a container that is about to be made.
    pub(crate) fn reserve(
        &mut self,
        id: &ContainerId,
        bundle: PathBuf,
        rootfs: Option<Export>,
        stdio: Stdio,
    ) -> Result<(), TableError> {
        if self.containers.contains_key(id) {
            return Err(TableError::ContainerExists(id.clone()));
        }
        if self.containers.len() >= limits::CONTAINERS {
            return Err(TableError::TooMany { what: "containers", max: limits::CONTAINERS });
        }
        let init = Process::new(Status::Creating, stdio, None);
        self.containers
            .insert(id.clone(), Container { bundle, rootfs, demand: None, init, execs: BTreeMap::new() });
        Ok(())
    }

    pub(crate) fn made(&mut self, id: &ContainerId) -> Result<(), TableError> {
        let container = self.container_mut(id)?;
        container.init.status =
            container.init.status.after(Event::Made).map_err(|_| TableError::NotRunning)?;
        Ok(())
    }

    /// From now on the container's limits count; returns what all containers together need of the machine.
    pub(crate) fn sized(&mut self, id: &ContainerId, demand: Demand) -> Result<Need, TableError> {
        self.container_mut(id)?.demand = Some(demand);
        Ok(self.need(id, Demand::default()))
    }

    /// What all containers together need of the machine, were `id` given these limits.
    pub(crate) fn need(&self, id: &ContainerId, update: Demand) -> Need {
        Need::of(self.containers.iter().filter_map(|(other, container)| {
            if other == id { Some(container.demand?.updated(update)) } else { container.demand }
        }))
    }

    /// The guest has taken them.
    pub(crate) fn updated(&mut self, id: &ContainerId, update: Demand) {
        if let Ok(container) = self.container_mut(id) {
            container.demand = container.demand.map(|demand| demand.updated(update));
        }
    }

    /// Describes an exec of a container that is created or runs.
    pub(crate) fn describe(
        &mut self,
        key: &Key,
        exec: &ExecId,
        stdio: Stdio,
        plan: ExecPlan,
    ) -> Result<(), TableError> {
        let container = self.container_mut(&key.container)?;
        match container.init.status {
            Status::Created | Status::Starting | Status::Running => {}
            Status::Paused if plan.ignore_paused => {}
            Status::Paused => return Err(TableError::ExecPaused),
            Status::Creating | Status::Stopped => return Err(TableError::NotRunning),
        }
        if container.execs.contains_key(exec) {
            return Err(TableError::ExecExists(exec.clone()));
        }
        if container.execs.len() >= limits::EXECS {
            return Err(TableError::TooMany { what: "processes", max: limits::EXECS });
        }
        container.execs.insert(exec.clone(), Process::new(Status::Created, stdio, Some(plan)));
        Ok(())
    }

    /// The caller starts it in the guest next, and says `started` or `forget`.
    pub(crate) fn start(&mut self, key: &Key) -> Result<Option<ExecPlan>, TableError> {
        let process = self.process_mut(key)?;
        process.status =
            process.status.after(Event::Start).map_err(|e| TableError::NotCreated(e.status.name()))?;
        Ok(process.described.take())
    }

    pub(crate) fn started(&mut self, key: &Key) {
        if let Ok(process) = self.process_mut(key)
            && let Ok(status) = process.status.after(Event::Started)
        {
            process.status = status;
        }
    }

    /// Says whether it may be paused.
    pub(crate) fn check_pausable(&self, id: &ContainerId) -> Result<(), TableError> {
        let status = self.container(id)?.init.status;
        status.after(Event::Pause).map(drop).map_err(|_| TableError::NotRunning)
    }

    /// Says whether it may resume.
    pub(crate) fn check_paused(&self, id: &ContainerId) -> Result<(), TableError> {
        let status = self.container(id)?.init.status;
        status.after(Event::Resume).map(drop).map_err(|_| TableError::NotPaused)
    }

    /// The guest has done it. A container that has ended meanwhile stays so.
    pub(crate) fn frozen(&mut self, id: &ContainerId, event: Event) {
        if let Ok(container) = self.container_mut(id)
            && let Ok(status) = container.init.status.after(event)
        {
            container.init.status = status;
        }
    }

    pub(crate) fn exited(&mut self, key: &Key, exit: Exit) {
        if let Ok(process) = self.process_mut(key) {
            process.end(exit);
        }
    }

    /// The containers that have not ended.
    pub(crate) fn unfinished(&self) -> Vec<ContainerId> {
        let unfinished =
            self.containers.iter().filter(|(_, container)| container.init.status != Status::Stopped);
        unfinished.map(|(id, _)| id.clone()).collect()
    }

    /// Ends all that is not over: the sandbox died.
    pub(crate) fn all_died(&mut self, exit: &Exit) {
        for container in self.containers.values_mut() {
            for process in container.execs.values_mut() {
                process.end(exit.clone());
            }
            container.init.end(exit.clone());
        }
    }

    /// To be awaited without the lock.
    pub(crate) fn watch(&self, key: &Key) -> Result<watch::Receiver<Option<Exit>>, TableError> {
        Ok(self.process(key)?.exit.subscribe())
    }

    /// The end of a process that the guest has or is about to have; none for an exec that was not started.
    pub(crate) fn end_in_guest(&self, key: &Key) -> Option<watch::Receiver<Option<Exit>>> {
        let process = self.process(key).ok()?;
        process.described.is_none().then(|| process.exit.subscribe())
    }

    /// Says whether a signal can be sent.
    pub(crate) fn check_alive(&self, key: &Key) -> Result<(), TableError> {
        match self.process(key)?.status {
            Status::Created | Status::Starting | Status::Running | Status::Paused => Ok(()),
            Status::Creating => Err(TableError::NotRunning),
            Status::Stopped => Err(TableError::Finished),
        }
    }

    /// Says whether it can be deleted, which takes its end or that it never ran.
    pub(crate) fn check_deletable(&self, key: &Key) -> Result<(), TableError> {
        match self.process(key)?.status {
            Status::Stopped | Status::Created => Ok(()),
            running @ (Status::Creating | Status::Starting | Status::Running | Status::Paused) => {
                Err(TableError::NotStopped(running.name()))
            }
        }
    }

    /// What a container alone has in the share.
    pub(crate) fn rootfs(&self, id: &ContainerId) -> Option<Export> {
        self.container(id).ok()?.rootfs.clone()
    }

    /// Drops what is known of it.
    pub(crate) fn forget(&mut self, key: &Key) {
        match &key.exec {
            None => drop(self.containers.remove(&key.container)),
            Some(exec) => {
                if let Some(container) = self.containers.get_mut(&key.container) {
                    container.execs.remove(exec);
                }
            }
        }
    }

    pub(crate) fn bundle(&self, key: &Key) -> Result<PathBuf, TableError> {
        Ok(self.container(&key.container)?.bundle.clone())
    }

    /// True when there were containers and all of them have ended.
    pub(crate) fn is_over(&self) -> bool {
        !self.containers.is_empty()
            && self.containers.values().all(|container| container.init.status == Status::Stopped)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }
}

#[cfg(test)]
mod tests;
