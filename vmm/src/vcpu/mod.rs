//! One thread for each vCPU: enter the guest, serve the exit, again.
//!
//!   KVM_RUN ─▶ exit ─┬▶ MMIO: the slot's registers        ┐
//!                    ├▶ port: the early console, or none  ├─▶ KVM_RUN
//!                    ├▶ EINTR/EAGAIN: stop asked?         ┘
//!                    └▶ reset, shutdown, KVM error ─▶ `Outcome` to the control thread, the thread ends
//!
//! A vCPU thread never waits for the control thread, and nobody waits for a vCPU thread without a deadline.

mod again;
mod cpuid;
mod diagnosis;
mod exits;
mod registers;
mod runner;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_SYNC_X86_REGS};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use self::{again::Again, diagnosis::Trail, runner::Runner};
pub use self::{
    exits::Exits,
    registers::Begin,
    runner::{Outcome, Reporter, Shared},
};
use crate::{
    confine::Kind,
    threads::{Entering, ThreadError, confined, unprepared},
    vm::{Vm, VmError, step, too_many},
};

/// How often a vCPU that should stop is signalled: a signal just before KVM_RUN is lost, the next one is not.
const SIGNAL_AGAIN: Duration = Duration::from_millis(5);
const STOP: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    #[error("set up vCPU {id}")]
    Setup { id: u8, source: VmError },
    #[error(transparent)]
    Thread(#[from] ThreadError),
    #[error("install the handler of the stop signal")]
    Signal { source: vmm_sys_util::errno::Error },
}

/// The vCPUs of a VM, set up but not running.
#[derive(Debug)]
pub struct ParkedVcpus {
    vcpus: Vec<VcpuFd>,
    /// KVM leaves the registers of each exit in the shared page.
    synced: bool,
}

impl ParkedVcpus {
    /// Makes one vCPU for each of `begins`. `stable_tsc`: the host keeps time by its TSC.
    ///
    /// # Errors
    /// KVM refuses a step; the message names the vCPU and the ioctl.
    pub fn create(kvm: &Kvm, vm: &Vm, begins: &[Begin], stable_tsc: bool) -> Result<Self, VcpuError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(step("KVM_GET_SUPPORTED_CPUID"))
            .map_err(|source| VcpuError::Setup { id: 0, source })?;
        let synced = kvm.check_extension_int(Cap::SyncRegs) & KVM_SYNC_X86_REGS as i32 != 0;
        // At most `limits::VCPUS`.
        let count = begins.len() as u8;
        let vcpu = |id, begin| -> Result<VcpuFd, VmError> {
            let mut vcpu = vm.fd().create_vcpu(u64::from(id)).map_err(step("KVM_CREATE_VCPU"))?;
            let cpuid = cpuid::for_vcpu(&supported, cpuid::Guest { id, count, stable_tsc })
                .map_err(|_| too_many("prepare KVM_SET_CPUID2"))?;
            vcpu.set_cpuid2(&cpuid).map_err(step("KVM_SET_CPUID2"))?;
            registers::set(&vcpu, begin)?;
            if synced {
                vcpu.set_sync_valid_reg(SyncReg::Register);
            }
            Ok(vcpu)
        };
        let vcpus = (0..)
            .zip(begins)
            .map(|(id, begin)| vcpu(id, *begin).map_err(|source| VcpuError::Setup { id, source }))
            .collect::<Result<_, _>>()?;
        Ok(Self { vcpus, synced })
    }

    /// Starts all threads. They wait, confined, for `WaitingVcpus::run`.
    ///
    /// # Errors
    /// A thread could not be started or confined. Those that were started end.
    pub fn start(self, shared: &Shared) -> Result<WaitingVcpus, VcpuError> {
        register_signal_handler(SIGRTMIN(), on_stop_signal).map_err(|source| VcpuError::Signal { source })?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut waiting =
            WaitingVcpus { gates: Vec::new(), vcpus: Vcpus { stop: Arc::clone(&stop), threads: Vec::new() } };
        let mut entering = Vec::new();
        for (id, fd) in (0_u8..).zip(self.vcpus) {
            let ((ended, end), (gate, open)) = (channel(), channel::<()>());
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
            let run = move |()| {
                // A gate that is dropped means that another thread could not start.
                if open.recv().is_ok() {
                    runner.run();
                }
            };
            let (handle, enters) = confined(Kind::Vcpu, format!("vcpu{id}"), unprepared, run)?;
            waiting.vcpus.threads.push(Thread { handle, end });
            waiting.gates.push(gate);
            entering.push(enters);
        }
        entering.into_iter().try_for_each(Entering::wait)?;
        Ok(waiting)
    }
}

/// The vCPUs with their threads, which have not entered the guest yet.
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
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
