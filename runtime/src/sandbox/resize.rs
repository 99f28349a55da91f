//! The machine grows and shrinks while its containers run: memory by virtio-mem, vCPUs by the guest's CPU hotplug.
//!
//!   resize ─▶ bounds on the host ─▶ more memory, until it is plugged ─▶ vCPUs on or off line ─▶ less memory, asked for
//!
//! A machine whose container has no memory limit grows without being asked; `pressure` sees to it, and hears from here
//! when another one has changed the size.
//!
//! One at a time. A step that fails undoes those before it. Taking memory away comes last, because it cannot fail: the guest gives what
//! it can spare and goes on trying, and its containers' own limits hold meanwhile. What it booted with it keeps. The
//! device is plugged when it is first needed, so a sandbox that never grows pays nothing for it.

use std::time::Duration;

use bulkhead_protocol::{
    limits,
    vmm::{Device, Reply, Request},
};
use tokio::{sync::watch, time::Instant};

use super::{
    agent::{Agent, AgentError},
    cgroup::bounds::{Bounds, BoundsError},
    sizing::{BOOT_VCPUS, Memory, Need, Sizes},
    slots::MEM,
    vmm::{Vmm, VmmError},
};

/// virtio-mem plugs in blocks of this size.
const BLOCK_MIB: u32 = 2;
const MIB: u64 = 1 << 20;
/// Between two looks at how much is plugged. The guest takes milliseconds for a block of 128 MiB.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const PLUGGED: &str = "mem.plugged_bytes";
/// Requests of the guest's driver that the device did not grant.
const REFUSED: &str = "mem.refused";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    #[error("{step}")]
    Vmm { step: &'static str, source: VmmError },
    #[error("{step}")]
    Agent { step: &'static str, source: AgentError },
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    #[error("the guest has plugged {plugged} of {wanted} MiB of memory within {waited:?}")]
    Slow { plugged: u64, wanted: u32, waited: Duration },
    #[error("the host has no more than {plugged} of {wanted} MiB for the guest")]
    Refused { plugged: u64, wanted: u32 },
}

/// What a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) memory_mib: u32,
    pub(crate) vcpus: u8,
}

/// What bounds a machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Whether its containers are limited, or else it grows as they need.
    pub(crate) memory: Memory,
    pub(crate) memory_mib: u32,
    /// What it grows to by itself.
    pub(crate) grows_to_mib: u32,
}

/// A booted machine, as far as its size goes.
#[derive(Debug)]
pub(crate) struct Machine {
    vmm: Vmm,
    sizes: Sizes,
    /// `None` without a cgroup on the host.
    bounds: Option<Bounds>,
    /// For the guest to plug what it is offered.
    patience: Duration,
    /// Held for the whole of an update: the next one starts from what it has reached.
    now: tokio::sync::Mutex<Now>,
    /// Changed by who holds it.
    room: watch::Sender<Room>,
}

/// The one who may change the size.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    machine: &'a Machine,
    now: tokio::sync::MutexGuard<'a, Now>,
}

/// Of the memory device.
#[derive(Debug, Clone, Copy)]
struct Progress {
    plugged_mib: u64,
    refused: u64,
}

#[derive(Debug)]
struct Now {
    size: Size,
    /// The memory device is in its slot and bound.
    plugged: bool,
}

impl Machine {
    /// `memory` is of the container that it is made for.
    pub(crate) fn new(vmm: Vmm, sizes: Sizes, bounds: Option<Bounds>, memory: Memory) -> Self {
        let Sizes { memory_mib, grows_to_mib, .. } = sizes;
        let size = Size { memory_mib, vcpus: BOOT_VCPUS };
        Self {
            vmm,
            sizes,
            bounds,
            patience: limits::RPC,
            now: tokio::sync::Mutex::new(Now { size, plugged: false }),
            room: watch::Sender::new(Room { memory, memory_mib, grows_to_mib }),
        }
    }

    /// Whose machine it is.
    pub(crate) fn vmm(&self) -> &Vmm {
        &self.vmm
    }

    /// The most memory that it may have, in MiB.
    pub(crate) fn max_memory_mib(&self) -> u32 {
        self.sizes.max_memory_mib
    }

    /// What bounds its memory, to be awaited.
    pub(crate) fn room(&self) -> watch::Receiver<Room> {
        self.room.subscribe()
    }

    /// Waits for those who change the size, and keeps others from it until this is dropped.
    pub(crate) async fn hold(&self) -> Held<'_> {
        Held { machine: self, now: self.now.lock().await }
    }

    /// The host has killed the VMM, or another process of the pod, because the pod wanted more than its bound.
    pub(crate) fn was_killed_for_memory(&self) -> bool {
        self.bounds.as_ref().is_some_and(|bounds| bounds.kills() > 0)
    }

    fn allow(&self, size: Size) -> Result<(), ResizeError> {
        let bounds = self.bounds.as_ref();
        bounds.map_or(Ok(()), |bounds| Ok(bounds.fit(size.memory_mib, size.vcpus)?))
    }

    fn bounded(&self, before: Size, need: Need) -> Size {
        let Sizes { memory_mib, max_memory_mib, max_vcpus, .. } = self.sizes;
        let vcpus = need.vcpus.map_or(before.vcpus, |count| u8::try_from(count).unwrap_or(max_vcpus));
        Size {
            memory_mib: need
                .memory_mib
                .map_or(before.memory_mib, |mib| mib.clamp(memory_mib, max_memory_mib)),
            vcpus: vcpus.clamp(1, max_vcpus),
        }
    }

    async fn grow(&self, now: &mut Now, agent: &Agent, mib: u32) -> Result<(), ResizeError> {
        if !now.plugged {
            self.plug(agent).await?;
            now.plugged = true;
        }
        let refused = self.progress().await?.refused;
        self.ask(mib).await?;
        let wanted = (mib - self.sizes.memory_mib).next_multiple_of(BLOCK_MIB);
        let deadline = Instant::now() + self.patience;
        loop {
            let now = self.progress().await?;
            let plugged = now.plugged_mib;
            if plugged >= wanted.into() {
                return Ok(());
            }
            // The driver would try again in 5 s, and its containers would wait as long.
            if now.refused > refused {
                return Err(ResizeError::Refused { plugged, wanted });
            }
            if Instant::now() >= deadline {
                return Err(ResizeError::Slow { plugged, wanted, waited: self.patience });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn plug(&self, agent: &Agent) -> Result<(), ResizeError> {
        let step = "plug the memory device";
        let request = Request::Plug { slot: MEM, device: Device::Mem };
        self.call(step, request).await?;
        let step = "bind the memory device in the guest";
        if let Err(source) = agent.bind_slot(MEM).await {
            let _ = self.call(step, Request::Unplug { slot: MEM }).await;
            return Err(ResizeError::Agent { step, source });
        }
        Ok(())
    }

    async fn ask(&self, mib: u32) -> Result<(), ResizeError> {
        self.call("resize the guest's memory", Request::ResizeMemory { mib }).await.map(drop)
    }

    /// Also when it fails, interrupts may have been moved between vCPUs, and one that came meanwhile is lost.
    async fn set_online(&self, agent: &Agent, vcpus: u8) -> Result<(), AgentError> {
        let set = agent.set_online_cpus(vcpus.into()).await;
        // A VMM that does not answer shows itself at the next request.
        let _ = self.call("nudge the guest's devices", Request::Nudge).await;
        set
    }

    /// Back to the size that was, as far as it goes; the error that led here is the one to report.
    async fn undo(&self, before: Size) {
        let _ = self.ask(before.memory_mib).await;
    }

    /// What the VMM counts, by name.
    pub(crate) async fn counters(&self) -> Result<Vec<(String, u64)>, ResizeError> {
        match self.call("read the machine's counters", Request::Metrics).await? {
            Reply::Metrics(metrics) => Ok(metrics),
            Reply::Booted | Reply::Done => Ok(Vec::new()),
        }
    }

    async fn progress(&self) -> Result<Progress, ResizeError> {
        let metrics = self.counters().await?;
        let value =
            |wanted: &str| metrics.iter().find(|(name, _)| name == wanted).map_or(0, |(_, value)| *value);
        Ok(Progress { plugged_mib: value(PLUGGED) / MIB, refused: value(REFUSED) })
    }

    async fn call(&self, step: &'static str, request: Request) -> Result<Reply, ResizeError> {
        let reply = self.vmm.call(request, Vec::new(), limits::CONTROL).await;
        reply.map_err(|source| ResizeError::Vmm { step, source })
    }
}

impl Held<'_> {
    /// A container without a memory limit has come: the pod may fill volumes in the host's memory, and the machine grows by
    /// itself.
    pub(crate) fn lift_memory(&self) -> Result<(), ResizeError> {
        if let Some(bounds) = &self.machine.bounds {
            bounds.lift()?;
        }
        self.announce(|room| room.memory = Memory::Unlimited);
        Ok(())
    }

    /// All containers have limits now, which the machine is made for.
    pub(crate) fn limit_memory(&self) {
        self.announce(|room| room.memory = Memory::Limited);
    }

    fn announce(&self, change: impl FnOnce(&mut Room)) {
        self.machine.room.send_if_modified(|room| {
            let before = *room;
            change(room);
            *room != before
        });
    }

    /// Brings the vCPUs online that a container of these sizes is to find. What the host pays for them is bounded already.
    pub(crate) async fn start_vcpus(&mut self, agent: &Agent) -> Result<(), ResizeError> {
        let wanted = self.machine.sizes.vcpus;
        if wanted != self.now.size.vcpus {
            let step = "bring the guest's vCPUs online";
            let set = self.machine.set_online(agent, wanted).await;
            set.map_err(|source| ResizeError::Agent { step, source })?;
            self.now.size.vcpus = wanted;
        }
        Ok(())
    }

    /// What bounds the memory.
    pub(crate) fn room(&self) -> Room {
        *self.machine.room.borrow()
    }

    pub(crate) fn size(&self) -> Size {
        self.now.size
    }

    /// Makes the machine as large as needed, or as its bounds allow. What `need` leaves open stays; asking for what is
    /// there already does nothing. Must not be dropped half-way: see `container::detached`.
    pub(crate) async fn resize(&mut self, agent: &Agent, need: Need) -> Result<(), ResizeError> {
        let Self { machine, now } = self;
        let before = now.size;
        let wanted = machine.bounded(before, need);
        // Never less than what it has while it changes.
        machine.allow(Size {
            memory_mib: wanted.memory_mib.max(before.memory_mib),
            vcpus: wanted.vcpus.max(before.vcpus),
        })?;
        if wanted.memory_mib > before.memory_mib
            && let Err(error) = machine.grow(now, agent, wanted.memory_mib).await
        {
            machine.undo(before).await;
            return Err(error);
        }
        if wanted.vcpus != before.vcpus {
            let step = "bring the guest's vCPUs on or off line";
            if let Err(source) = machine.set_online(agent, wanted.vcpus).await {
                // It may have come half-way.
                let _ = machine.set_online(agent, before.vcpus).await;
                machine.undo(before).await;
                return Err(ResizeError::Agent { step, source });
            }
            now.size.vcpus = wanted.vcpus;
        }
        if wanted.memory_mib < before.memory_mib {
            machine.ask(wanted.memory_mib).await?;
        }
        now.size = wanted;
        let allowed = machine.allow(wanted);
        self.announce(|room| room.memory_mib = wanted.memory_mib);
        allowed
    }
}

impl Size {
    /// This, or more where that is needed.
    pub(crate) fn or_more(self, need: Need) -> Need {
        Need {
            memory_mib: Some(need.memory_mib.unwrap_or(0).max(self.memory_mib)),
            vcpus: Some(need.vcpus.unwrap_or(0).max(self.vcpus.into())),
        }
    }
}

#[cfg(test)]
mod tests;
