//! One thread for each vCPU: enter the guest, serve the exit, again.
//!
//!   KVM_RUN ─▶ exit ─┬▶ MMIO: the slot's registers        ┐
//!                    ├▶ port: the early console, or none  ├─▶ KVM_RUN
//!                    ├▶ EINTR/EAGAIN: stop asked?         ┘
//!                    └▶ shutdown, KVM error ─▶ `Outcome` to the control thread, the thread ends
//!
//! A vCPU thread never waits for the control thread, and nobody waits for a vCPU thread without a deadline.

mod cpuid;
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
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vmm_sys_util::{
    eventfd::EventFd,
    signal::{Killable, SIGRTMIN, register_signal_handler},
};

use crate::{
    boot::Entry,
    confine::{self, ConfineError, Kind},
    devices::{console::Early, mmio::Slots},
    vm::{Vm, VmError, step},
};

/// How often a vCPU that should stop is signalled: a signal just before KVM_RUN is lost, the next one is not.
const SIGNAL_AGAIN: Duration = Duration::from_millis(5);
const STOP: Duration = Duration::from_secs(5);

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
pub struct ParkedVcpus(Vec<VcpuFd>);

impl ParkedVcpus {
    /// Makes `count` vCPUs; the first starts at `entry`.
    pub fn create(kvm: &Kvm, vm: &Vm, count: u8, entry: Entry) -> Result<Self, VcpuError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(step("KVM_GET_SUPPORTED_CPUID"))
            .map_err(|source| VcpuError::Setup { id: 0, source })?;
        let vcpu = |id| -> Result<VcpuFd, VmError> {
            let vcpu = vm.fd().create_vcpu(u64::from(id)).map_err(step("KVM_CREATE_VCPU"))?;
            let cpuid = cpuid::for_vcpu(&supported, id, count);
            vcpu.set_cpuid2(&cpuid).map_err(step("KVM_SET_CPUID2"))?;
            if id == 0 {
                registers::set_entry(&vcpu, entry)?;
            }
            registers::set_msrs(&vcpu)?;
            registers::set_local_interrupts(&vcpu)?;
            Ok(vcpu)
        };
        let vcpus = (0..count)
            .map(|id| vcpu(id).map_err(|source| VcpuError::Setup { id, source }))
            .collect::<Result<_, _>>()?;
        Ok(Self(vcpus))
    }

    /// Starts all threads. They wait, confined, for `WaitingVcpus::run`.
    pub fn start(self, shared: &Shared) -> Result<WaitingVcpus, VcpuError> {
        register_signal_handler(SIGRTMIN(), on_stop_signal).map_err(|source| VcpuError::Signal { source })?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut waiting =
            WaitingVcpus { gates: Vec::new(), vcpus: Vcpus { stop: Arc::clone(&stop), threads: Vec::new() } };
        for (id, fd) in (0_u8..).zip(self.0) {
            let ((ended, end), (gate, open), (ready, confined)) = (channel(), channel(), channel());
            let runner = Runner { id, fd, shared: shared.clone(), stop: Arc::clone(&stop), _ended: ended };
            let name = format!("vcpu{id}");
            let run = {
                let name = name.clone();
                move || {
                    // The starter waits for it.
                    let _ = ready.send(confine::enter(Kind::Vcpu, &name));
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
    _ended: Sender<()>,
}

impl Runner {
    fn run(mut self) {
        if self.id == 0 {
            self.shared.reporter.report(Outcome::Entered(Stamp::now(Phase::KernelEntered)));
        }
        while !self.stop.load(Ordering::Acquire) {
            if let Some(exit) = self.step() {
                self.shared.reporter.report(Outcome::Exited(exit));
                return;
            }
        }
    }

    /// Enters the guest once; `Some` when the VM is over.
    fn step(&mut self) -> Option<GuestExit> {
        let Shared { slots, ports, exits, .. } = &self.shared;
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                count(&exits.mmio_reads);
                if !slots.read(address, data) {
                    data.fill(0xff);
                }
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                count(&exits.mmio_writes);
                slots.write(address, data);
                None
            }
            Ok(VcpuExit::IoIn(_, data)) => {
                // An empty bus floats high; drivers that probe for a chip see at once that there is none.
                count(&exits.port_reads);
                data.fill(0xff);
                None
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                count(&exits.port_writes);
                ports.write(port, data);
                None
            }
            Ok(VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen) => None,
            // INIT and SIPI make KVM_RUN of a waiting vCPU return with EAGAIN; a signal with EINTR.
            Err(error) if matches!(error.errno(), libc::EAGAIN | libc::EINTR) => {
                count(&exits.interrupted);
                None
            }
            Ok(VcpuExit::Shutdown) => Some(GuestExit::Reset),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                Some(self.broken(&format!("entry refused by the hardware, reason {reason:#x}")))
            }
            Ok(VcpuExit::InternalError) => {
                let suberror = self.suberror();
                Some(self.broken(&format!("internal error {suberror}")))
            }
            Ok(VcpuExit::SystemEvent(kind, _)) => Some(self.broken(&format!("system event {kind}"))),
            Ok(other) => {
                let exit = format!("unexpected exit {other:?}");
                Some(self.broken(&exit))
            }
            Err(error) => Some(self.broken(&format!("KVM_RUN: {error}"))),
        }
    }

    fn suberror(&mut self) -> String {
        // SAFETY: KVM filled this member of the union, since the exit reason is KVM_EXIT_INTERNAL_ERROR; all its
        // fields are plain integers.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        match suberror {
            kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => {
                "1 (an instruction that KVM cannot emulate: does this KVM run stock guests?)".into()
            }
            other => other.to_string(),
        }
    }

    fn broken(&self, what: &str) -> GuestExit {
        GuestExit::Kvm(format!("vCPU {}: {what}", self.id))
    }
}

#[cfg(test)]
mod tests;
