//! One vCPU on its thread: enter the guest, serve the exit, again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::Duration,
};

use bulkhead_protocol::{
    timeline::{Phase, Stamp},
    vmm::GuestExit,
};
use kvm_bindings::{KVM_EXIT_NOTIFY, KVM_EXIT_X86_BUS_LOCK};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::eventfd::EventFd;

use super::{
    again::{After, Again},
    diagnosis::{self, ExitKind, Trail},
    exits::Exits,
};
use crate::devices::{console::Early, mmio::Slots};

/// What each bus lock costs the guest, so that its host sees at most a hundred a second from one vCPU.
const BUS_LOCK_PAUSE: Duration = Duration::from_millis(10);
const AGAIN_PAUSE: Duration = Duration::from_millis(1);
/// The first KVM_RUN makes a thread in the caller's cgroup (`vhost_task_create` in Linux 6.12).
const STUCK: &str = "KVM_RUN: it answers \"try again\" without end: most likely pids.max of the VMM's cgroup leaves no room for KVM's own thread";

/// What a vCPU thread tells the control thread.
#[derive(Debug)]
pub enum Outcome {
    /// The first vCPU is about to run its first instruction.
    Entered(Stamp),
    Exited(GuestExit),
}

/// Where outcomes go: a channel, and an eventfd to wait on beside other descriptors.
#[derive(Debug, Clone)]
pub struct Reporter {
    outcomes: Sender<Outcome>,
    wake: Arc<EventFd>,
}

impl Reporter {
    pub fn new(outcomes: Sender<Outcome>, wake: Arc<EventFd>) -> Self {
        Self { outcomes, wake }
    }

    pub(crate) fn report(&self, outcome: Outcome) {
        // The receiver is gone only when the process is ending.
        let _ = self.outcomes.send(outcome);
        let _ = self.wake.write(1);
    }
}

/// What all vCPU threads use of the machine.
#[derive(Debug, Clone)]
pub struct Shared {
    pub slots: Arc<Slots>,
    pub ports: Arc<Early>,
    pub exits: Arc<Exits>,
    pub reporter: Reporter,
}

/// One vCPU and its thread's share of the machine.
pub(super) struct Runner {
    pub(super) id: u8,
    pub(super) fd: VcpuFd,
    pub(super) shared: Shared,
    pub(super) stop: Arc<AtomicBool>,
    /// KVM leaves the registers of each exit in the shared page.
    pub(super) synced: bool,
    pub(super) trail: Trail,
    pub(super) again: Again,
    /// Never carries anything; disconnects when the runner is gone.
    pub(super) _ended: Sender<()>,
}

/// What an exit leads to, when not back into the guest.
enum End {
    Reset,
    TripleFault,
    /// KVM cannot go on.
    Broken(String),
}

impl Runner {
    pub(super) fn run(mut self) {
        if self.id == 0 {
            self.shared.reporter.report(Outcome::Entered(Stamp::now(Phase::KernelEntered)));
        }
        while !self.stop.load(Ordering::Acquire) {
            if let Some(end) = self.step() {
                let exit = self.exit(&end);
                self.shared.reporter.report(Outcome::Exited(exit));
                return;
            }
        }
    }

    /// Enters the guest once; `Some` when the VM is over.
    fn step(&mut self) -> Option<End> {
        let Shared { slots, ports, exits, .. } = &self.shared;
        let ran = self.fd.run();
        let again = self.again.take(ran.as_ref().err().map(|error| error.errno()));
        let (kind, place, end) = match ran {
            Ok(VcpuExit::MmioRead(address, data)) => {
                exits.mmio_reads.increment();
                if !slots.read(address, data) {
                    data.fill(0xff);
                }
                (ExitKind::MmioRead, address, None)
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                exits.mmio_writes.increment();
                slots.write(address, data);
                (ExitKind::MmioWrite, address, None)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                // An empty bus floats high; drivers that probe for a chip see at once that there is none.
                exits.port_reads.increment();
                data.fill(0xff);
                (ExitKind::PortRead, port.into(), None)
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                exits.port_writes.increment();
                ports.write(port, data);
                (ExitKind::PortWrite, port.into(), resets(port, data).then_some(End::Reset))
            }
            Ok(VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen) => (ExitKind::Other, 0, None),
            // INIT and SIPI make KVM_RUN of a waiting vCPU return with EAGAIN; a signal with EINTR.
            Err(error) if matches!(error.errno(), libc::EAGAIN | libc::EINTR) => {
                exits.interrupted.increment();
                // Others than the first wait for INIT and SIPI, as often as the guest likes to send them.
                let stuck = (again == After::Stuck && self.id == 0).then(|| End::Broken(STUCK.into()));
                if again != After::Go && stuck.is_none() {
                    thread::sleep(AGAIN_PAUSE);
                }
                (ExitKind::Interrupted, 0, stuck)
            }
            Ok(VcpuExit::Unsupported(KVM_EXIT_X86_BUS_LOCK)) => {
                exits.bus_locks.increment();
                thread::sleep(BUS_LOCK_PAUSE);
                (ExitKind::BusLock, 0, None)
            }
            Ok(VcpuExit::Shutdown) => (ExitKind::Other, 0, Some(End::TripleFault)),
            Ok(exit) => {
                let end = match exit {
                    VcpuExit::FailEntry(reason, _) => {
                        format!("entry refused by the hardware, reason {reason:#x}")
                    }
                    VcpuExit::InternalError => diagnosis::internal_error(self.fd.get_kvm_run()),
                    VcpuExit::SystemEvent(kind, _) => format!("system event {kind}"),
                    VcpuExit::Unsupported(KVM_EXIT_NOTIFY) => {
                        "the guest blocked the processor until its state was lost".into()
                    }
                    other => format!("unexpected exit {other:?}"),
                };
                (ExitKind::Other, 0, Some(End::Broken(end)))
            }
            Err(error) => (ExitKind::Other, 0, Some(End::Broken(format!("KVM_RUN: {error}")))),
        };
        if end.is_none() {
            let rip = self.synced.then(|| {
                // SAFETY: with `synced`, KVM fills this member of the union at each exit; its fields are plain
                // integers.
                unsafe { self.fd.get_kvm_run().s.regs.regs.rip }
            });
            self.trail.add(kind, place, rip);
        }
        end
    }

    /// The end with all that is known of the vCPU. Asks KVM for the registers, which must be as the exit left them.
    fn exit(&self, end: &End) -> GuestExit {
        let line = || diagnosis::line(self.id, &self.fd, &self.trail);
        match end {
            End::Reset => GuestExit::Reset,
            End::TripleFault => GuestExit::TripleFault(line().into()),
            End::Broken(why) => GuestExit::Kvm(format!("{why}; {}", line()).into()),
        }
    }
}

/// Whether a write to a port is a reset: the reset control register of Intel's and AMD's chipsets, which Linux writes with
/// `reboot=p`. Bit 2 going from 0 to 1 resets the CPU; Linux clears it first.
pub(super) fn resets(port: u16, data: &[u8]) -> bool {
    const RESET_CONTROL: u16 = 0xcf9;
    const RESET_CPU: u8 = 1 << 2;
    port == RESET_CONTROL && matches!(data, [value] if value & RESET_CPU != 0)
}
