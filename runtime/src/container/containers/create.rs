//! The steps of a creation in the server, and what becomes of one that is not completed.
//!
//!   begin ─▶ Creation, and one task that waits for the caller's end      create: made in the guest, parked
//!   commit ─▶ recorded          abort, or the caller ends ─▶ out of the guest ─▶ Creation dropped: undone
//!
//! The creation that the sandbox was started for is undone when the VM is gone: the VMM is in its cgroup. So an abort of it
//! ends the server (`until_over`), which drops it last.

use std::{os::fd::OwnedFd, sync::Arc};

use bulkhead_protocol::{id::ContainerId, limits, timeline::Phase};
use bulkhead_sys::chain;
use tokio::{io::unix::AsyncFd, task::spawn_blocking, time::timeout};

use super::{
    super::{
        ContainerError, ContainerPlan, Stdio,
        attachment::end_of,
        creation::{Creation, CreationRequest},
        status::Status,
    },
    Containers, detached,
};
use crate::{
    log::note,
    sandbox::{agent::Agent, cgroup, expose::Files, key::Key, nics::Found, sizing::Demand},
    spec::HostLimits,
};

impl Containers {
    /// Takes the id for a container that the caller wants.
    ///
    /// # Errors
    /// As `Creation::claim`; or the caller is gone.
    pub(crate) async fn begin(self: Arc<Self>, request: CreationRequest) -> Result<(), ContainerError> {
        let root = self.root.clone();
        let claimed = spawn_blocking(move || Creation::claim(&root, request, false)).await;
        self.adopt(claimed.map_err(|source| ContainerError::Broken { source })??)
    }

    /// Keeps a creation until it is complete, or its caller ends.
    ///
    /// # Errors
    /// When the caller is gone.
    pub(crate) fn adopt(self: &Arc<Self>, creation: Creation) -> Result<(), ContainerError> {
        let id = creation.id().clone();
        let gone = || ContainerError::NoCaller { id: id.clone() };
        let pidfd = creation.caller().pidfd().ok().flatten().ok_or_else(gone)?;
        let end = end_of(Arc::new(pidfd)).map_err(|_| gone())?;
        self.creations().insert(id.clone(), creation);
        tokio::spawn(self.clone().watch_caller(id, end));
        Ok(())
    }

    async fn watch_caller(self: Arc<Self>, id: ContainerId, end: AsyncFd<Arc<OwnedFd>>) {
        // An error here can only mean that the runtime ends.
        let _ = end.readable().await;
        // It was completed, or undone already.
        if self.creations().contains_key(&id)
            && let Err(error) = self.clone().abort(id.clone()).await
        {
            note(&format!("undo the creation of {id}: {}", chain(&error)));
        }
    }

    /// Makes the container in the guest, up to its program, which waits for `start`. The pid of what it is attached to.
    ///
    /// # Errors
    /// The first step that fails; the guest has nothing of it then, and a creation that was begun waits to be aborted.
    pub(crate) async fn create(
        self: Arc<Self>,
        key: Key,
        plan: ContainerPlan,
        stdio: Stdio,
    ) -> Result<u32, ContainerError> {
        // Without a creation it is one that leaves nothing on the host: another client's than ours.
        let making = self.creations().get(&key.container).map(|creation| creation.making.clone());
        let _making = match making {
            Some(making) => {
                let held = making.lock_owned().await;
                if !self.creations().contains_key(&key.container) {
                    return Err(ContainerError::NoCreation { id: key.container });
                }
                Some(held)
            }
            None => None,
        };
        self.table().reserve(
            &key.container,
            plan.bundle.clone(),
            plan.exports.first().cloned(),
            stdio.clone(),
        )?;
        match self.make(&key, &plan, &stdio).await {
            Ok(()) => {
                self.mark(&key, Phase::ContainerCreated);
                self.watch_memory(&key.container);
                tokio::spawn(self.clone().wait_for_exit(key.clone()));
                // What holds its streams may have ended while it was made.
                self.kill_orphan(&key).await;
                Ok(self.host_pid(&key))
            }
            Err(error) => {
                self.forget(&key).await;
                Err(error)
            }
        }
    }

    async fn make(&self, key: &Key, plan: &ContainerPlan, stdio: &Stdio) -> Result<(), ContainerError> {
        let files = self.open_files(key, plan)?;
        let made_for_it = self.sandbox.is_made_for(&key.container);
        // While the guest boots.
        let tuning = self.sandbox.tuning();
        let (agent, found) = tokio::join!(self.sandbox.agent(), self.prepare_network(key));
        let (agent, found) = (agent?, found?);
        let (guest, warnings) = self.sandbox.place(&agent, &key.container, files).await?;
        self.warn(key, warnings);
        self.sandbox.serve_sockets(&agent);
        let limits = match self.sandbox.cgroup() {
            Some(cgroup) if made_for_it => cgroup.limits.clone(),
            Some(_) | None => HostLimits::default(),
        };
        let demand = Demand::of_new(&plan.guest, &plan.pod, &limits);
        let need = self.table().sized(&key.container, demand)?;
        if made_for_it {
            // Side by side: a failure of either ends the sandbox, and with it what the other has done.
            let created = agent.create(key, &guest, stdio.for_agent(), Some(&tuning));
            let (created, entered) = tokio::join!(created, self.enter_cgroup(key));
            created?;
            entered?;
        } else {
            self.enter_cgroup(key).await?;
            self.sandbox.make_room(&agent, demand, need).await?;
            if let Some(score) = plan.guest.process.oom_score_adj {
                self.sandbox.raise_oom_score(score)?;
            }
            agent.create(key, &guest, stdio.for_agent(), None).await?;
        }
        self.apply_network(key, &agent, found).await?;
        self.sandbox.watch_volumes(&agent, &key.container, &guest.mounts).await;
        Ok(self.table().made(&key.container)?)
    }

    /// Opens its files, as who creates the container sees them.
    fn open_files<'p>(&self, key: &Key, plan: &'p ContainerPlan) -> Result<Files<'p>, ContainerError> {
        let attachment = self.attachments.get(key);
        if attachment.is_none() && self.attachments.is_lost(key) {
            return Err(ContainerError::Unattached);
        }
        let caller = attachment.as_ref().map(|attachment| attachment.pidfd().as_ref());
        Ok(self.sandbox.open_files(&plan.exports, &plan.disks, &plan.guest, caller)?)
    }

    /// Keeps what the user is to read until the container is complete. Another client than ours has the log.
    fn warn(&self, key: &Key, warnings: Vec<String>) {
        match self.creations().get_mut(&key.container) {
            Some(creation) => creation.warnings.extend(warnings),
            None => warnings.iter().for_each(|warning| note(warning)),
        }
    }

    /// Moves what holds the container's streams into its cgroup, and this server where the VMM is. Not earlier: they have
    /// opened what they need of the host's devices now, and the cgroup may forbid them all (podman's pods do, with cgroupfs).
    /// The kernel moves a process only after a grace period of RCU, so this takes a thread of its own.
    async fn enter_cgroup(&self, key: &Key) -> Result<(), ContainerError> {
        let place = self.creations().get(&key.container).and_then(Creation::cgroup_path);
        let Some(path) = place else { return Ok(()) };
        let server = self.sandbox.is_made_for(&key.container).then(std::process::id);
        let attached = self.attachments.get(key).map(|attachment| attachment.process().pid);
        let entered = spawn_blocking(move || {
            server.into_iter().chain(attached).try_for_each(|pid| cgroup::enter(&path, pid))
        });
        entered.await.map_err(|source| ContainerError::Broken { source })??;
        let entrance = self.creations().get_mut(&key.container).map(Creation::entered);
        // Outside of the lock: it may wait for a process to end.
        drop(entrance);
        Ok(())
    }

    /// What there is of a network that was given by its path. It is that of the container that brought it, and of those
    /// that share its namespace.
    async fn prepare_network(&self, key: &Key) -> Result<Option<Found>, ContainerError> {
        if !self.sandbox.is_made_for(&key.container) {
            return Ok(None);
        }
        let nics = self.sandbox.nics();
        let Some(namespace) = nics.given() else { return Ok(None) };
        let (found, ()) = tokio::join!(nics.prepare(), self.sandbox.forward().listen(namespace));
        Ok(found?)
    }

    pub(super) async fn apply_network(
        &self,
        key: &Key,
        agent: &Agent,
        found: Option<Found>,
    ) -> Result<(), ContainerError> {
        match found {
            Some(found) => Ok(self.sandbox.nics().apply(agent, &key.container, found).await?),
            None => Ok(()),
        }
    }

    /// The container is complete: it is made, and its hooks have run. What is not quite as the bundle asks for.
    ///
    /// # Errors
    /// When it is not made, or cannot be recorded; the creation is undone then.
    pub(crate) async fn commit(self: Arc<Self>, id: ContainerId) -> Result<Vec<String>, ContainerError> {
        let key = Key::init(id.clone());
        let made = self.table().process(&key).is_ok_and(|process| process.status != Status::Creating);
        if !made {
            return Err(ContainerError::NotMade { id });
        }
        let mut creation = self.creations().remove(&id).ok_or(ContainerError::NoCreation { id })?;
        let written = creation.write_record(self.attachments.process(&key));
        if let Err(error) = written {
            self.creations().insert(creation.id().clone(), creation);
            return Err(error);
        }
        let warnings = std::mem::take(&mut creation.warnings);
        creation.complete();
        self.committed.store(true, std::sync::atomic::Ordering::Relaxed);
        self.changed.notify_one();
        Ok(warnings)
    }

    /// Undoes a creation that was begun.
    ///
    /// # Errors
    /// When there is none under way.
    pub(crate) async fn abort(self: Arc<Self>, id: ContainerId) -> Result<(), ContainerError> {
        let Some(mut creation) = self.creations().remove(&id) else {
            return Err(ContainerError::NoCreation { id });
        };
        let key = Key::init(id.clone());
        if let Some(attachment) = self.attachments.get(&key) {
            attachment.kill();
        }
        if self.sandbox.is_made_for(&id) {
            creation.aborted = true;
            self.creations().insert(id, creation);
            self.changed.notify_one();
            return Ok(());
        }
        // Whoever makes it finds no creation, or has made it when this goes on.
        let _making = creation.making.clone().lock_owned().await;
        self.clone().take_out(&key).await;
        let undone = spawn_blocking(move || drop(creation)).await;
        self.attachments.remove(&key);
        self.changed.notify_one();
        undone.map_err(|source| ContainerError::Broken { source })
    }

    /// Ends a container that the guest has, and takes it from there.
    async fn take_out(self: Arc<Self>, key: &Key) {
        if self.table().process(key).is_err() {
            return;
        }
        if self.table().check_alive(key).is_ok()
            && let Ok(agent) = self.sandbox.agent().await
        {
            let _ = self.kill_for_sure(&agent, key, true).await;
            // Whatever the guest does, it is known as ended by then: `kill_for_sure` ends the VM else.
            let _ = timeout(limits::KILL * 2, self.wait(key)).await;
        }
        if let Err(error) = detached(self.delete(key.clone())).await {
            note(&format!("take {} from the guest: {}", key.container, chain(&error)));
        }
    }

    /// A creation was aborted that the sandbox was started for.
    pub(super) fn is_aborted(&self) -> bool {
        self.creations().values().any(|creation| creation.aborted)
    }

    /// For the end of the server, when the VM is gone: undoes what was begun and is not complete.
    pub(crate) fn undo_creations(&self) {
        let open = std::mem::take(&mut *self.creations());
        drop(open);
    }

    /// Whether a container was ever complete in this sandbox.
    pub(crate) fn had_one(&self) -> bool {
        self.committed.load(std::sync::atomic::Ordering::Relaxed)
    }
}
