//! One thread for each vCPU: enter the guest, serve the exit, again.
//!
//!   KVM_RUN ─▶ exit ─┬▶ MMIO: the slot's registers        ┐
//!                    ├▶ port: the early console, or none  ├─▶ KVM_RUN
//!                    ├▶ EINTR/EAGAIN: stop asked?         ┘
//!                    └▶ reset, shutdown, KVM error ─▶ `Outcome` to the control thread, the thread ends
//!
//! A vCPU thread never waits for the control thread, and nobody waits for a vCPU thread without a deadline.

mod cpuid;
mod diagnosis;
mod registers;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    timeline::{Phase, Stamp},
    vmm::GuestExit,
};
use kvm_bindings::{KVM_EXIT_NOTIFY, KVM_EXIT_X86_BUS_LOCK, KVM_MAX_CPUID_ENTRIES, KVM_SYNC_X86_REGS};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuExit, VcpuFd};
use vmm_sys_util::{
    eventfd::EventFd,
    signal::{Killable, SIGRTMIN, register_signal_handler},
};

use self::diagnosis::{Kind, Trail};
use crate::{
    boot::Entry,
    confine::{self, ConfineError},
    devices::{console::Early, mmio::Slots},
    vm::{Vm, VmError, step, too_many},
};

/// How often a vCPU that should stop is signalled: a signal just before KVM_RUN is lost, the next one is not.
const SIGNAL_AGAIN: Duration = Duration::from_millis(5);
const STOP: Duration = Duration::from_secs(5);
/// What each bus lock costs the guest, so that its host sees at most a hundred a second from one vCPU.
const BUS_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// EAGAIN in a row: so many are answered at once, and so many are too many, about 2 s later.
const AGAIN_AT_ONCE: u32 = 16;
const AGAIN_MOST: u32 = 2000;
const AGAIN_PAUSE: Duration = Duration::from_millis(1);
/// The first KVM_RUN makes a thread in the caller's cgroup (`vhost_task_create` in Linux 6.12).
const STUCK: &str = "KVM_RUN: it answers \"try again\" without end: most likely pids.max of the VMM's cgroup leaves no room for KVM's own thread";

#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    #[error("set up vCPU {id}")]
    Setup { id: u8, source: VmError },
    #[error("start the thread of vCPU {id}")]
    Thread { id: u8, source: io::Error },
    #[error("start the thread of vCPU {id}")]
    Confine { id: u8, source: ConfineError },
    #[error("the thread of vCPU {id} ended before it ran")]
    Ended { id: u8 },
    #[error("install the handler of the stop signal")]
    Signal { source: vmm_sys_util::errno::Error },
}

/// What a vCPU thread tells the control thread.
#[derive(Debug)]
pub enum Outcome {
    /// The first vCPU is about to run its first instruction.
    Entered(Stamp),
    Exited(GuestExit),
}

/// VM exits that reached this process, over all vCPUs.
#[derive(Debug, Default)]
pub struct Exits {
    mmio_reads: AtomicU64,
    mmio_writes: AtomicU64,
    port_reads: AtomicU64,
    port_writes: AtomicU64,
    interrupted: AtomicU64,
    bus_locks: AtomicU64,
}

impl Exits {
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("mmio_reads", of(&self.mmio_reads)),
            ("mmio_writes", of(&self.mmio_writes)),
            ("port_reads", of(&self.port_reads)),
            ("port_writes", of(&self.port_writes)),
            ("interrupted", of(&self.interrupted)),
            ("bus_locks", of(&self.bus_locks)),
        ]
    }
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

/// The vCPUs of a VM, set up but not running.
#[derive(Debug)]
pub struct ParkedVcpus {
    vcpus: Vec<VcpuFd>,
    /// KVM leaves the registers of each exit in the shared page.
    synced: bool,
}

impl ParkedVcpus {
    /// Makes `count` vCPUs; the first starts at `entry`. `stable_tsc`: the host keeps time by its TSC.
    pub fn create(kvm: &Kvm, vm: &Vm, count: u8, stable_tsc: bool, entry: Entry) -> Result<Self, VcpuError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(step("KVM_GET_SUPPORTED_CPUID"))
            .map_err(|source| VcpuError::Setup { id: 0, source })?;
        let synced = kvm.check_extension_int(Cap::SyncRegs) & KVM_SYNC_X86_REGS as i32 != 0;
        let vcpu = |id| -> Result<VcpuFd, VmError> {
            let mut vcpu = vm.fd().create_vcpu(u64::from(id)).map_err(step("KVM_CREATE_VCPU"))?;
            let cpuid = cpuid::for_vcpu(&supported, cpuid::Guest { id, count, stable_tsc })
                .map_err(|_| too_many("prepare KVM_SET_CPUID2"))?;
            vcpu.set_cpuid2(&cpuid).map_err(step("KVM_SET_CPUID2"))?;
            if id == 0 {
                registers::set_entry(&vcpu, entry)?;
            }
            registers::set_msrs(&vcpu)?;
            registers::set_local_interrupts(&vcpu)?;
            if synced {
                vcpu.set_sync_valid_reg(SyncReg::Register);
            }
            Ok(vcpu)
        };
        let vcpus = (0..count)
            .map(|id| vcpu(id).map_err(|source| VcpuError::Setup { id, source }))
            .collect::<Result<_, _>>()?;
        Ok(Self { vcpus, synced })
    }

    /// Starts all threads. They wait, confined, for `WaitingVcpus::run`.
    pub fn start(self, shared: &Shared) -> Result<WaitingVcpus, VcpuError> {
        register_signal_handler(SIGRTMIN(), on_stop_signal).map_err(|source| VcpuError::Signal { source })?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut waiting =
            WaitingVcpus { gates: Vec::new(), vcpus: Vcpus { stop: Arc::clone(&stop), threads: Vec::new() } };
        for (id, fd) in (0_u8..).zip(self.vcpus) {
            let ((ended, end), (gate, open), (ready, confined)) = (channel(), channel(), channel());
            let runner = Runner {
                id,
                fd,
                shared: shared.clone(),
                stop: Arc::clone(&stop),
                synced: self.synced,
                trail: Trail::new(),
                again: Again::default(),
                _ended: ended,
            };
            let name = format!("vcpu{id}");
            let run = {
                let name = name.clone();
                move || {
                    // The starter waits for it.
                    let _ = ready.send(confine::enter(confine::Kind::Vcpu, &name));
                    // A gate that is dropped means that another thread could not start.
                    if open.recv().is_ok() {
                        runner.run();
                    }
                }
            };
            let handle = thread::Builder::new()
                .name(name)
                .spawn(run)
                .map_err(|source| VcpuError::Thread { id, source })?;
            waiting.vcpus.threads.push(Thread { handle, end });
            waiting.gates.push(gate);
            let entered = confined.recv().map_err(|_| VcpuError::Ended { id })?;
            entered.map_err(|source| VcpuError::Confine { id, source })?;
        }
        Ok(waiting)
    }
}

/// vCPUs whose threads are there, and have not entered the guest.
#[derive(Debug)]
pub struct WaitingVcpus {
    // Dropped before `vcpus`, so that threads which wait end.
    gates: Vec<Sender<()>>,
    vcpus: Vcpus,
}

impl WaitingVcpus {
    pub fn run(self) -> Vcpus {
        for gate in self.gates {
            // One that has ended says so as a running one does.
            let _ = gate.send(());
        }
        self.vcpus
    }
}

/// Does nothing: its arrival makes KVM_RUN return.
extern "C" fn on_stop_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The running vCPUs; dropping it stops them.
#[derive(Debug)]
pub struct Vcpus {
    stop: Arc<AtomicBool>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// Never carries anything; disconnects when the thread's `Runner` is gone.
    end: Receiver<()>,
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let deadline = Instant::now() + STOP;
        for thread in &self.threads {
            while Instant::now() < deadline {
                // ESRCH: it has ended already.
                let _ = thread.handle.kill(SIGRTMIN());
                match thread.end.recv_timeout(SIGNAL_AGAIN) {
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
        }
    }
}

/// One vCPU and its thread's share of the machine.
struct Runner {
    id: u8,
    fd: VcpuFd,
    shared: Shared,
    stop: Arc<AtomicBool>,
    /// KVM leaves the registers of each exit in the shared page.
    synced: bool,
    trail: Trail,
    again: Again,
    _ended: Sender<()>,
}

/// What an exit leads to, when not back into the guest.
enum End {
    Reset,
    TripleFault,
    /// KVM cannot go on.
    Broken(String),
}

impl Runner {
    fn run(mut self) {
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
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let ran = self.fd.run();
        let again = self.again.take(ran.as_ref().err().map(|error| error.errno()));
        let (kind, place, end) = match ran {
            Ok(VcpuExit::MmioRead(address, data)) => {
                count(&exits.mmio_reads);
                if !slots.read(address, data) {
                    data.fill(0xff);
                }
                (Kind::MmioRead, address, None)
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                count(&exits.mmio_writes);
                slots.write(address, data);
                (Kind::MmioWrite, address, None)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                // An empty bus floats high; drivers that probe for a chip see at once that there is none.
                count(&exits.port_reads);
                data.fill(0xff);
                (Kind::PortRead, port.into(), None)
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                count(&exits.port_writes);
                ports.write(port, data);
                (Kind::PortWrite, port.into(), resets(port, data).then_some(End::Reset))
            }
            Ok(VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen) => (Kind::Other, 0, None),
            // INIT and SIPI make KVM_RUN of a waiting vCPU return with EAGAIN; a signal with EINTR.
            Err(error) if matches!(error.errno(), libc::EAGAIN | libc::EINTR) => {
                count(&exits.interrupted);
                // Others than the first wait for INIT and SIPI, as often as the guest likes to send them.
                let stuck = (again == After::Stuck && self.id == 0).then(|| End::Broken(STUCK.into()));
                if again != After::Go && stuck.is_none() {
                    thread::sleep(AGAIN_PAUSE);
                }
                (Kind::Interrupted, 0, stuck)
            }
            Ok(VcpuExit::Unsupported(KVM_EXIT_X86_BUS_LOCK)) => {
                count(&exits.bus_locks);
                thread::sleep(BUS_LOCK_PAUSE);
                (Kind::BusLock, 0, None)
            }
            Ok(VcpuExit::Shutdown) => (Kind::Other, 0, Some(End::TripleFault)),
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
                (Kind::Other, 0, Some(End::Broken(end)))
            }
            Err(error) => (Kind::Other, 0, Some(End::Broken(format!("KVM_RUN: {error}")))),
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
fn resets(port: u16, data: &[u8]) -> bool {
    const RESET_CONTROL: u16 = 0xcf9;
    const RESET_CPU: u8 = 1 << 2;
    port == RESET_CONTROL && matches!(data, [value] if value & RESET_CPU != 0)
}

/// How often KVM_RUN has answered EAGAIN in a row, without the guest having run.
#[derive(Debug, Default)]
struct Again(u32);

/// What to do after an answer of KVM_RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Go on.
    Go,
    /// Go on after a moment.
    Pause,
    /// It will not end.
    Stuck,
}

impl Again {
    fn take(&mut self, errno: Option<i32>) -> After {
        if errno != Some(libc::EAGAIN) {
            self.0 = 0;
            return After::Go;
        }
        self.0 = self.0.saturating_add(1);
        match self.0 {
            0..=AGAIN_AT_ONCE => After::Go,
            count if count < AGAIN_MOST => After::Pause,
            _ => After::Stuck,
        }
    }
}

#[cfg(test)]
mod tests;
