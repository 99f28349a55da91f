//! The sandbox: one microVM and what the host gives it.
//!
//!   Parts ─▶ Sandbox { machine, nics, share, host cgroup, timeline }          made whole, once
//!              └─ vm: Booting ─▶ Running { agent, clock } ─▶ Failed             what changes
//!
//!   vmm, boot, agent: bulkhead-vmm and bulkhead-agent as the server calls them
//!   resize, sizing, pressure, cgroup, oom_score: how large it is, and what it may take of the host
//!   tuning: what of the host's settings its kernel gets      binfmt: how it runs foreign binaries
//!   source, volumes, share, expose, mount_points: what the guest sees of the host's files
//!   host_sockets: connections of the guest to unix sockets of the host      streams: those that carry such connections
//!   watches: watchers in the guest hear what others change in its volumes
//!   disks: block devices and files of the host that are devices of the guest
//!   nics, slots: its network devices, and where each device sits      forward: connections to its loopback
//!   clock: the guest's time follows the host's
//!
//! It may hold any number of containers, none included. What is known of them, and how one is created, is `container`'s.

pub(crate) mod agent;
pub mod binfmt;
pub(crate) mod boot;
pub mod cgroup;
pub(crate) mod clock;
pub(crate) mod clock_source;
mod disks;
pub(crate) mod expose;
mod failure;
pub(crate) mod forward;
mod host_sockets;
pub(crate) mod key;
mod mount_points;
pub(crate) mod nics;
pub mod oom_score;
pub(crate) mod packets;
mod plan;
pub(crate) mod pressure;
pub(crate) mod resize;
pub(crate) mod share;
pub mod sizing;
mod slots;
mod source;
pub(crate) mod standstill;
mod streams;
pub(crate) mod timeline;
mod tuning;
pub(crate) mod vmm;
mod volumes;
mod watches;

use std::{borrow::Cow, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use bulkhead_protocol::{
    container::{ContainerSpec, Mount, VolumeKind},
    id::ContainerId,
    limits,
    tuning::Tuning,
    vmm::Request,
};
use bulkhead_sys::chain;
use tokio::sync::{Mutex, watch};

pub(crate) use self::failure::Failure;
pub use self::plan::SandboxPlan;
use self::{
    agent::Agent,
    clock::Clock,
    disks::Disks,
    expose::{ExposeError, Files},
    forward::Forward,
    host_sockets::HostSockets,
    key::Key,
    nics::Nics,
    resize::{Held, Machine, ResizeError},
    share::Share,
    sizing::{Demand, Memory, Need},
    streams::Streams,
    timeline::Timeline,
    vmm::{Over, Reason, processes::Processes},
    volumes::Volumes,
};
use crate::{
    log::note,
    spec::{DiskMount, Export, HostLimits},
    store::Door,
    systemd::{self, Scope},
};

/// All that a sandbox is made of, before its guest is up.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The container that the machine was sized for, and in whose host cgroup it is. Others may come to it.
    pub(crate) host_container: Option<ContainerId>,
    /// Where the microVM is; `None` where the caller is.
    pub(crate) cgroup: Option<HostCgroup>,
    pub(crate) machine: Machine,
    /// Of the VMM: what was spawned, and what is in the jail.
    pub(crate) processes: Processes,
    pub(crate) nics: Nics,
    /// The VMM's vsock, for streams to the agent.
    pub(crate) vsock: Door,
    /// Whether connections to the loopback addresses of its network namespace on the host reach it.
    pub(crate) port_forward: bool,
    pub(crate) share: Share,
    pub(crate) timeline: Timeline,
}

/// The host cgroup of a microVM.
#[derive(Debug)]
pub(crate) struct HostCgroup {
    pub(crate) path: PathBuf,
    /// As systemd has it.
    pub(crate) scope: Option<Scope>,
    /// Those it was made with.
    pub(crate) limits: HostLimits,
}

/// How far the VM has come.
#[derive(Debug, Clone)]
pub(crate) enum Vm {
    Booting,
    Running(Guest),
    Failed(Failure),
}

/// A guest that is up.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) agent: Agent,
    pub(crate) clock: Clock,
}

/// A microVM that boots, runs or has ended.
#[derive(Debug)]
pub(crate) struct Sandbox {
    parts: Parts,
    forward: Forward,
    sockets: HostSockets,
    /// What the containers have of the host. Held while one of them gets its own, so that two never mount one source twice.
    volumes: Mutex<Volumes>,
    /// Held while one gets its disks or loses them.
    disks: Mutex<Disks>,
    vm: watch::Sender<Vm>,
    /// In which watchers hear of changes made on the host.
    watched: watch::Sender<watches::Volumes>,
}

impl Sandbox {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let (vm, watched) = (watch::Sender::new(Vm::Booting), watch::Sender::default());
        let streams = Streams::new(parts.vsock.clone());
        let container = parts.host_container.clone().filter(|_| parts.port_forward);
        let forward = Forward::new(streams.clone(), container);
        let sockets = HostSockets::new(streams);
        let (volumes, disks) = (Mutex::default(), Mutex::default());
        Arc::new(Self { parts, forward, sockets, volumes, disks, vm, watched })
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.parts.machine
    }

    pub(crate) fn nics(&self) -> &Nics {
        &self.parts.nics
    }

    pub(crate) fn forward(&self) -> &Forward {
        &self.forward
    }

    pub(crate) fn timeline(&self) -> &Timeline {
        &self.parts.timeline
    }

    pub(crate) fn cgroup(&self) -> Option<&HostCgroup> {
        self.parts.cgroup.as_ref()
    }

    /// What the VMM counts, by name.
    pub(crate) async fn machine_counters(&self) -> Result<Vec<(String, u64)>, ResizeError> {
        self.parts.machine.counters().await
    }

    /// Whether the machine was made for this container: sized by its limits, in its host cgroup.
    pub(crate) fn is_made_for(&self, container: &ContainerId) -> bool {
        self.parts.host_container.as_ref() == Some(container)
    }

    /// What the VM is at, to be awaited.
    pub(crate) fn vm(&self) -> watch::Receiver<Vm> {
        self.vm.subscribe()
    }

    /// The guest, as soon as it is up.
    ///
    /// # Errors
    /// When it does not come up, or is no more.
    pub(crate) async fn guest(&self) -> Result<Guest, Failure> {
        let mut vm = self.vm();
        let decided = vm.wait_for(|vm| !matches!(vm, Vm::Booting)).await.map(|vm| vm.clone());
        match decided {
            Ok(Vm::Running(guest)) => Ok(guest),
            Ok(Vm::Failed(failure)) => Err(failure),
            // The sender is ours.
            Ok(Vm::Booting) | Err(_) => Err(Failure::Ends),
        }
    }

    /// As `guest`, for those who only call the agent.
    ///
    /// # Errors
    /// As `guest`.
    pub(crate) async fn agent(&self) -> Result<Agent, Failure> {
        Ok(self.guest().await?.agent)
    }

    /// The agent, if the guest is up now.
    pub(crate) fn agent_now(&self) -> Option<Agent> {
        match &*self.vm.borrow() {
            Vm::Running(guest) => Some(guest.agent.clone()),
            Vm::Booting | Vm::Failed(_) => None,
        }
    }

    /// The guest is up, unless the VM has ended in this very moment.
    pub(crate) fn booted(&self, guest: Guest) {
        self.vm.send_if_modified(|vm| {
            let booting = matches!(vm, Vm::Booting);
            if booting {
                *vm = Vm::Running(guest);
            }
            booting
        });
    }

    /// The sandbox is of no use any more. The first reason counts.
    pub(crate) fn fail(&self, failure: Failure) {
        self.vm.send_if_modified(|vm| {
            let first = !matches!(vm, Vm::Failed(_));
            if first {
                *vm = Vm::Failed(failure);
            }
            first
        });
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(*self.vm.borrow(), Vm::Failed(_))
    }

    /// Takes note of the VM's end, and says what it was.
    pub(crate) fn over(&self, mut over: Over) -> Over {
        if over.reason == Reason::Died && self.parts.machine.was_killed_for_memory() {
            over.reason = Reason::Ended("the host's OOM killer ended the VMM".to_owned());
        }
        // While it boots, `boot` sees the same end and says more about it.
        if !matches!(*self.vm.borrow(), Vm::Booting) {
            self.fail(Failure::Over(over.clone()));
        }
        over
    }

    /// Whether somebody on the host has stopped the VMM.
    pub(crate) fn stands_still(&self) -> bool {
        self.parts.processes.stand_still()
    }

    /// Ends the VM for this reason; who watches for its end gives every process its exit.
    pub(crate) async fn end(&self, why: &str) {
        self.fail(Failure::Ended(why.to_owned()));
        self.parts.machine.vmm().end(why.to_owned()).await;
    }

    /// Ends the VM. The guest is asked for its disks alone: with its containers gone it holds nothing else that matters, for virtio-fs
    /// has no writeback cache here, and every file was flushed when its last user ended. The caller kills what does not end.
    pub(crate) async fn stop(&self) {
        let _ = tokio::time::timeout(limits::DISKS_GONE, self.take_disks()).await;
        let vmm = self.parts.machine.vmm();
        let stopped = async {
            let _ = vmm.call(Request::Stop, Vec::new(), limits::CONTROL).await;
            vmm.wait_over().await
        };
        let _ = tokio::time::timeout(limits::SHUTDOWN, stopped).await;
    }

    /// Has the guest unmount its disks, and write what it has not written yet.
    async fn take_disks(&self) {
        let mut disks = self.disks.lock().await;
        let Some(agent) = self.agent_now() else { return };
        for container in disks.users() {
            // Its mounts go with it. What still runs there keeps them until the disk goes.
            let _ = agent.delete(&Key::init(container.clone())).await;
            disks.release(self.parts.machine.vmm(), Some(&agent), &container).await;
        }
    }

    /// The host's settings for the guest, as they are now.
    pub(crate) fn tuning(&self) -> Tuning {
        tuning::of_host(self.parts.machine.max_memory_mib())
    }

    /// For a container that comes to a machine which was not made for it. `need` is that of all containers with this one.
    /// Must not be dropped half-way.
    ///
    /// # Errors
    /// When the machine cannot be made larger.
    pub(crate) async fn make_room(
        &self,
        agent: &Agent,
        demand: Demand,
        need: Need,
    ) -> Result<(), ResizeError> {
        let mut machine = self.parts.machine.hold().await;
        let size = machine.size();
        if demand.memory() == Memory::Unlimited {
            machine.lift_memory()?;
        }
        let more = need.or(demand.beside(size.memory_mib, size.vcpus));
        let resized = machine.resize(agent, size.or_more(more)).await;
        if need.memory_mib.is_some() && resized.is_ok() {
            machine.limit_memory();
        }
        self.tell_systemd().await;
        resized
    }

    /// Waits for those who change the machine's size, and keeps others from it until this is dropped.
    pub(crate) async fn hold_machine(&self) -> Held<'_> {
        self.parts.machine.hold().await
    }

    /// The sandbox is spared by the host's OOM killer no more than any of its containers.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn raise_oom_score(&self, score: i32) -> Result<(), oom_score::OomScoreError> {
        oom_score::raise(score, &self.parts.processes.all())
    }

    /// The unit keeps what the files of the cgroup say. They hold as they are, until systemd writes them anew.
    pub(crate) async fn tell_systemd(&self) {
        let Some(HostCgroup { path, scope: Some(scope), .. }) = &self.parts.cgroup else { return };
        let (scope, path) = (scope.clone(), path.clone());
        let told = tokio::task::spawn_blocking(move || systemd::follow(&scope, &path)).await;
        if let Ok(Err(error)) = told {
            note(&chain(&error));
        }
    }

    /// Opens what a container has of the host, with the mounts of `caller`, a process behind a pidfd. The guest may boot meanwhile.
    ///
    /// # Errors
    /// As `expose::open`.
    pub(crate) fn open_files<'p>(
        &self,
        exports: &[Export],
        disks: &[DiskMount],
        guest: &'p ContainerSpec,
        caller: Option<&OwnedFd>,
    ) -> Result<Files<'p>, ExposeError> {
        expose::open(&self.parts.share, exports, disks, guest, caller)
    }

    /// Shows a container's volumes to the guest, which is up, and gives it the disks. The spec by which the guest finds them, and what
    /// is not as the bundle asks for. `withdraw` takes back what this has done, also when it fails.
    ///
    /// # Errors
    /// As `Files::place` and `Files::attach`.
    pub(crate) async fn place<'p>(
        &self,
        agent: &Agent,
        container: &ContainerId,
        mut files: Files<'p>,
    ) -> Result<(Cow<'p, ContainerSpec>, Vec<String>), ExposeError> {
        if !files.are_placed() {
            let vmm = self.parts.processes.jailed().map_err(|source| ExposeError::Vmm { source })?;
            let mut volumes = self.volumes.lock().await;
            files.place(&self.parts.share, &mut volumes, &self.sockets, &vmm, container)?;
        }
        let guest = (self.parts.machine.vmm(), agent);
        files.attach(&mut *self.disks.lock().await, guest, container).await?;
        let warnings = std::mem::take(&mut files.warnings);
        Ok((files.into_spec(), warnings))
    }

    /// Carries connections of the guest to sockets of the host, if containers have any.
    pub(crate) fn serve_sockets(&self, agent: &Agent) {
        self.sockets.serve(agent);
    }

    /// From now on watchers hear of what others than the guest change in the volumes that `mounts` has of the share. Without
    /// volumes nobody asks the guest for watches.
    pub(crate) async fn watch_volumes(&self, agent: &Agent, container: &ContainerId, mounts: &[Mount]) {
        let _one_at_a_time = self.volumes.lock().await;
        if !self.watched.send_if_modified(|volumes| volumes.add(container, mounts)) {
            return;
        }
        if self.watched.receiver_count() > 0 {
            return;
        }
        let processes = self.parts.processes.clone();
        let vmm = processes.jailed().map_err(|source| ExposeError::Vmm { source });
        match vmm.and_then(|vmm| Ok(self.parts.share.in_jail(&vmm, |jail| jail.root())?)) {
            Ok(root) => {
                drop(tokio::spawn(watches::follow(agent.clone(), root, processes, self.watched.subscribe())));
            }
            Err(error) => note(&format!("watch the volumes of {container}: {}", chain(&error))),
        }
    }

    /// Takes from the guest what a container alone has of the host: its rootfs, and volumes that no other container uses. The guest
    /// has unmounted them. Its kernel may keep files, and a hostile one what it likes: the VMM closes them.
    pub(crate) async fn withdraw(&self, container: &ContainerId, rootfs: Option<&Export>) {
        self.watched.send_if_modified(|volumes| volumes.remove(container));
        let mut volumes = self.volumes.lock().await;
        let mut names = Vec::new();
        for released in volumes.release(container) {
            match released.kind {
                VolumeKind::Share => {
                    self.parts.share.remove_volume(&released.id.name(), released.directory);
                    names.push(String::from(released.id.name()));
                }
                VolumeKind::Socket(_) => self.sockets.remove(&released.id.name()),
                // The agent makes a tmpfs, and `disks` has the disks.
                VolumeKind::Memory(_) | VolumeKind::Disk(_) => {}
            }
        }
        drop(volumes);
        let agent = self.agent_now();
        self.disks.lock().await.release(self.parts.machine.vmm(), agent.as_ref(), container).await;
        if let Some(rootfs) = rootfs {
            self.parts.share.remove(rootfs);
        }
        names.push(container.to_string());
        if agent.is_none() {
            return;
        }
        for directory in names {
            let request = Request::Revoke { directory };
            let revoked = self.parts.machine.vmm().call(request, Vec::new(), limits::CONTROL).await;
            if let Err(error) = revoked {
                note(&format!("take the files of {container} from the guest: {}", chain(&error)));
            }
        }
    }
}

pub(crate) use source::{is_memory, open_export, set_read_only};
pub(crate) use vmm::pass_as;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) use fake::process as test_process;
