//! The machine: everything between `Request::Boot` and the end of the process, in the order in which it is made.
//!
//!   `CheckedConfig` ─▶ jail ─▶ VM ─▶ memory ─▶ kernel, tables ─▶ devices in slots ─▶ vCPUs ─▶ running
//!
//! Owned by the control thread. A step that fails drops what the earlier ones made, in reverse.

mod config;

use std::{os::fd::IntoRawFd, sync::Arc};

use bulkhead_protocol::{
    timeline::{Phase, Stamp},
    vmm::{Device, FailureKind, Slot},
};
use kvm_ioctls::Kvm;

pub use self::config::{CheckedConfig, ConfigError};
use crate::{
    boot::{self, BootError},
    confine::{self, ConfineError, Kind},
    devices::{
        self, BuildError, Context, blk,
        console::{Early, Output},
        mem::Room,
        mmio::{SlotError, Slots},
    },
    event_loop::{EventLoop, LoopError},
    fds::Fds,
    jail::{self, Inner, JailError},
    memory::{Memory, MemoryError},
    vcpu::{Begin, Exits, ParkedVcpus, Reporter, Shared, VcpuError, Vcpus},
    vm::{Vm, VmError},
};

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error(transparent)]
    Disks(#[from] blk::WorkerError),
    #[error("build the device of slot {}", .slot.0)]
    Device { slot: Slot, source: BuildError },
    #[error(transparent)]
    Plug(#[from] SlotError),
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("a share can only come with the boot: a running VMM starts no threads")]
    Late,
}

impl MachineError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Config(_) | Self::Late => FailureKind::Invalid,
            Self::Jail(_) | Self::Confine(_) => FailureKind::Jail,
            Self::Vm(_) | Self::Vcpu(_) | Self::Plug(SlotError::Connect { .. }) => FailureKind::Kvm,
            Self::Memory(_) | Self::Boot(BootError::TooSmall { .. }) => FailureKind::Memory,
            Self::Boot(
                BootError::Image(_)
                | BootError::Write { .. }
                | BootError::Read { .. }
                | BootError::NoRoom { .. },
            ) => FailureKind::Image,
            Self::Plug(SlotError::Taken(_) | SlotError::NoSuch(_) | SlotError::Empty(_)) => {
                FailureKind::Invalid
            }
            Self::Device { source, .. } if source.is_invalid() => FailureKind::Invalid,
            Self::Loop(_) | Self::Disks(_) | Self::Device { .. } => FailureKind::Device,
        }
    }
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    // Fields drop in order: vCPUs stop before devices go, devices before their loop and their workers.
    _vcpus: Vcpus,
    exits: Arc<Exits>,
    slots: Arc<Slots>,
    console: Option<Slot>,
    vm: Vm,
    memory: Memory,
    memory_mib: u32,
    max_memory_mib: u32,
    context: Context,
    _event_loop: EventLoop,
    _disks: blk::Workers,
}

impl Machine {
    /// Builds and starts the machine. `stamp` hears of each phase as it is reached.
    ///
    /// # Errors
    /// The step that failed. A VMM whose boot has failed cannot boot again: its process is jailed and confined in part.
    pub fn boot(
        config: CheckedConfig,
        jail: Inner,
        reporter: &Reporter,
        mut stamp: impl FnMut(Stamp),
    ) -> Result<Self, MachineError> {
        let CheckedConfig { memory_mib, max_memory_mib, files, huge_pages, command_line, .. } = config;
        let CheckedConfig { kvm, mut kernel, mut initramfs, share, devices, mut fds, .. } = config;
        let proc_self_fd = jail.close(&share)?;
        drop(share);
        stamp(Stamp::now(Phase::Jailed));

        // SAFETY: the descriptor is owned and open, and nobody else has it; that it is /dev/kvm is the server's
        // word, which `Vm::create` checks by asking for the API version.
        let kvm = unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(kvm.into_raw_fd()) };
        let vm = Vm::create(&kvm)?;
        stamp(Stamp::now(Phase::VmCreated));

        let memory = Memory::growing(bytes(memory_mib), bytes(max_memory_mib - memory_mib))?;
        memory.advise(huge_pages);
        confine::watch(&memory);
        vm.set_memory(&memory)?;
        let vcpu_count = command_line.max_vcpus;
        let entry = boot::load(&memory, &mut kernel, &mut initramfs, &command_line, vcpu_count)?;
        stamp(Stamp::now(Phase::KernelLoaded));

        let event_loop = EventLoop::spawn()?;
        let disks = blk::Workers::spawn()?;
        let context = Context {
            event_loop: event_loop.handle(),
            console: Arc::new(Output::default()),
            proc_self_fd,
            shares: Arc::default(),
            files,
            room: memory.hotplug().map(|region| Arc::new(Room::new(region))),
            disks: disks.pool(),
        };
        let slots = Arc::new(Slots::new(Box::new(vm.clone()), memory.clone()));
        let console = devices.iter().find(|(_, device)| matches!(device, Device::Console { .. }));
        let console = console.map(|(slot, _)| *slot);
        for (slot, device) in devices {
            if matches!(device, Device::Mem) {
                vm.add_hotplug(&memory)?;
            }
            let device = devices::build(device, &mut fds, &context)
                .map_err(|source| MachineError::Device { slot, source })?;
            slots.plug(slot, device)?;
        }

        let exits = Arc::new(Exits::default());
        let shared = Shared {
            slots: Arc::clone(&slots),
            ports: Arc::new(Early::new(Arc::clone(&context.console))),
            exits: Arc::clone(&exits),
            reporter: reporter.clone(),
        };
        let begins = Begin::booting(entry, vcpu_count);
        let vcpus = ParkedVcpus::create(&kvm, &vm, &begins, command_line.stable_tsc)?.start(&shared)?;
        // All threads are there and confined but for this one.
        jail::limit_threads()?;
        confine::enter(Kind::Control, "control")?;
        Ok(Self {
            _vcpus: vcpus.run(),
            exits,
            slots,
            console,
            vm,
            memory,
            memory_mib,
            max_memory_mib,
            context,
            _event_loop: event_loop,
            _disks: disks,
        })
    }

    /// Makes a device and puts it into an empty slot.
    ///
    /// # Errors
    /// The device needs threads, its configuration is refused, or the slot is not free.
    pub fn plug(&self, slot: Slot, device: Device, fds: &mut Fds) -> Result<(), MachineError> {
        if matches!(device, Device::Fs { .. }) {
            return Err(MachineError::Late);
        }
        if matches!(device, Device::Mem) {
            self.vm.add_hotplug(&self.memory)?;
        }
        let device = devices::build(device, fds, &self.context)
            .map_err(|source| MachineError::Device { slot, source })?;
        Ok(self.slots.plug(slot, device)?)
    }

    /// Resets the device of a slot and drops it.
    ///
    /// # Errors
    /// There is no such slot, or no device in it.
    pub fn unplug(&self, slot: Slot) -> Result<(), MachineError> {
        Ok(self.slots.unplug(slot)?)
    }

    /// Says how much memory the guest shall have; its driver plugs or unplugs the rest when it comes to it.
    ///
    /// # Errors
    /// The size is not between the memory of the boot and the most that the machine may have.
    pub fn resize_memory(&self, mib: u32) -> Result<(), MachineError> {
        let Self { memory_mib, max_memory_mib, .. } = self;
        config::in_range("memory in MiB", mib, *memory_mib..=*max_memory_mib)?;
        if let Some(room) = &self.context.room {
            room.resize(bytes(mib - memory_mib) as u64);
        }
        Ok(())
    }

    /// Raises every device's interrupt once.
    pub fn nudge(&self) {
        self.slots.nudge();
    }

    /// Takes from the guest what it has of a directory of the share.
    pub fn revoke(&self, directory: &str) {
        self.context.shares.revoke(directory);
    }

    pub fn metrics(&self) -> Vec<(String, u64)> {
        let exits =
            self.exits.values().into_iter().map(|(counter, value)| (format!("vcpu.{counter}"), value));
        exits.chain(self.slots.metrics()).collect()
    }

    /// What the console said last, all of it: also what the device loop has not come to yet.
    pub fn console(&self) -> &Output {
        if let Some(slot) = self.console {
            // An empty slot was unplugged by request.
            let _ = self.slots.unplug(slot);
        }
        &self.context.console
    }
}

fn bytes(mib: u32) -> usize {
    (mib as usize) << 20
}
