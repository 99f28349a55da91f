//! Whether /dev/kvm runs stock guests: by running guest code, since the file's existence says little.
//!
//!   capabilities ─▶ VM with interrupt controllers, as a boot makes it
//!     ─▶ vCPU 0, a page of 64-bit code: cmpxchg16b, xgetbv, SSE2 ─▶ one byte to a port: the verdict
//!     ─▶ vCPU 1 halts ─ irqfd ─▶ its interrupt handler ─ doorbell ─▶ ioeventfd, then a byte to the port
//!                                                                                       (all with one deadline)
//!
//! Some machines offer a KVM that emulates guests in software and runs only patched ones: there the instructions that
//! any distribution's kernel uses fail or crawl. Not part of a VM's life; `bulkhead doctor` runs it as a process.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use bulkhead_protocol::{limits::SLOTS, vmm::Slot};
use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, kvm_irqchip, kvm_mp_state,
    kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{
    devices::mmio,
    memory::{HUGE_PAGE, Memory, MemoryError},
    threads,
    vm::{Vm, VmError, step},
};

/// Hardware takes microseconds; software emulation of nested virtualization some hundred milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const CODE: u64 = 0x4000;
/// Sixteen aligned zero bytes; the code has the address in it.
const DATA: u64 = 0x5000;
const DESCRIPTORS: u64 = 0x6000;
const INTERRUPTS: u64 = 0x7000;
const STACK: u64 = 0x9000;
const WAITER: u64 = 0x9000;
const HANDLER: u64 = 0x9100;
/// Beyond the guest's memory, which is one large page; the handler has the address in it.
const DOORBELL: u64 = HUGE_PAGE as u64;
const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 1 << 7;

const CODE_SEGMENT: u16 = 0x8;
/// Present, 64-bit code, privilege 0.
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
/// An interrupt vector above the 32 that the processor keeps for exceptions.
const VECTOR: u8 = 0x40;

const VERDICT_PORT: u16 = 0xe9;
const GOOD: u8 = b'Y';
const INTERRUPTED: u8 = b'I';

#[rustfmt::skip]
const PROGRAM: [u8; 66] = [
    0x31, 0xc0,                         // xor eax, eax
    0x31, 0xd2,                         // xor edx, edx
    0xbb, 0x11, 0, 0, 0,                // mov ebx, 0x11
    0xb9, 0x22, 0, 0, 0,                // mov ecx, 0x22
    0xbf, 0x00, 0x50, 0, 0,             // mov edi, DATA
    0xf0, 0x48, 0x0f, 0xc7, 0x0f,       // lock cmpxchg16b [rdi]
    0x75, 0x23,                         // jne bad
    0x31, 0xc9,                         // xor ecx, ecx
    0x0f, 0x01, 0xd0,                   // xgetbv
    0xa8, 0x01,                         // test al, 1
    0x74, 0x1a,                         // je bad
    0xb8, 0x21, 0, 0, 0,                // mov eax, 0x21
    0x66, 0x0f, 0x6e, 0xc0,             // movd xmm0, eax
    0x66, 0x0f, 0xfe, 0xc0,             // paddd xmm0, xmm0
    0x66, 0x0f, 0x7e, 0xc0,             // movd eax, xmm0
    0x83, 0xf8, 0x42,                   // cmp eax, 0x42
    0x75, 0x04,                         // jne bad
    0xb0, GOOD,                         // mov al, GOOD
    0xeb, 0x02,                         // jmp say
    0xb0, b'N',                         // bad: mov al, 'N'
    0xe6, VERDICT_PORT as u8,           // say: out VERDICT_PORT, al
    0xf4,                               // hlt
];

/// Waits for an interrupt, for ever.
#[rustfmt::skip]
const WAIT: [u8; 4] = [
    0xfb,                               // sti
    0xf4,                               // again: hlt
    0xeb, 0xfd,                         // jmp again
];

#[rustfmt::skip]
const HANDLE: [u8; 17] = [
    0xbf, 0, 0, 0x20, 0,                // mov edi, DOORBELL
    0xb8, 0x01, 0, 0, 0,                // mov eax, 1
    0x89, 0x07,                         // mov [rdi], eax
    0xb0, INTERRUPTED,                  // mov al, INTERRUPTED
    0xe6, VERDICT_PORT as u8,           // out VERDICT_PORT, al
    0xf4,                               // hlt
];

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("open {}", path.display())]
    Open { path: &'static Path, source: io::Error },
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error("guest memory for the probe")]
    Memory(#[from] MemoryError),
    #[error("write the probe's guest memory")]
    Write(#[from] GuestMemoryError),
    #[error("start the probe's thread")]
    Thread { source: io::Error },
    #[error("make an event descriptor for the probe")]
    Event { source: io::Error },
    #[error("guest code that {stage} ended with {exit}")]
    Exit { stage: Stage, exit: String },
    #[error("guest code that {stage} computed a wrong result")]
    Wrong { stage: Stage },
    #[error("a doorbell that guest code rang raised no event: ioeventfd does not work")]
    Doorbell,
    #[error("guest code that {stage} was not done after {DEADLINE:?}")]
    Slow { stage: Stage },
}

/// What the probe is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Compute,
    Interrupt,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Compute => "uses cmpxchg16b, xgetbv and SSE2",
            Self::Interrupt => "waits on a second vCPU for an interrupt by irqfd",
        })
    }
}

/// Runs the probe on /dev/kvm. On `Slow` a thread is left behind in the guest: end the process.
///
/// # Errors
/// What does not work, and at which stage.
pub fn probe() -> Result<(), ProbeError> {
    let path = Path::new("/dev/kvm");
    // kvm-ioctls keeps only the number of the error, so the file is opened here first.
    let open = std::fs::File::options().read(true).write(true).open(path);
    let file = open.map_err(|source| ProbeError::Open { path, source })?;
    drop(file);
    let stage = Arc::new(Mutex::new(Stage::Compute));
    let (answer, answered) = sync_channel(1);
    let reached = Arc::clone(&stage);
    threads::named("probe")
        .spawn(move || answer.send(run(&reached)))
        .map_err(|source| ProbeError::Thread { source })?;
    let result = answered.recv_timeout(DEADLINE);
    let stage = *stage.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(ProbeError::Slow { stage }),
        Err(RecvTimeoutError::Disconnected) => {
            Err(ProbeError::Exit { stage, exit: "a crash of the probe".into() })
        }
    }
}

fn run(stage: &Mutex<Stage>) -> Result<(), ProbeError> {
    let memory = Memory::anonymous(HUGE_PAGE)?;
    fill(&memory)?;
    let system = Kvm::new().map_err(step("open /dev/kvm"))?;
    let vm = Vm::create(&system)?;
    vm.set_memory(&memory)?;
    let cpuid = system.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(step("KVM_GET_SUPPORTED_CPUID"))?;
    let mut first = vcpu(&vm, 0, &cpuid, CODE)?;
    let mut second = vcpu(&vm, 1, &cpuid, WAITER)?;
    expect(&mut first, Stage::Compute, GOOD)?;
    *stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Interrupt;
    interrupt(&vm, &mut second)
}

fn fill(memory: &Memory) -> Result<(), ProbeError> {
    let beyond = DOORBELL | LARGE_PAGE | PRESENT_WRITABLE;
    let tables = [
        (PML4, PDPT | PRESENT_WRITABLE),
        (PDPT, PD | PRESENT_WRITABLE),
        (PD, LARGE_PAGE | PRESENT_WRITABLE),
        (PD + 8, beyond),
        (DESCRIPTORS + u64::from(CODE_SEGMENT), CODE_DESCRIPTOR),
        // A gate of 16 bytes: the handler's address in three parts, the segment, "present interrupt gate".
        (
            INTERRUPTS + 16 * u64::from(VECTOR),
            HANDLER & 0xffff | u64::from(CODE_SEGMENT) << 16 | 0x8e00 << 32 | (HANDLER >> 16 & 0xffff) << 48,
        ),
        (INTERRUPTS + 16 * u64::from(VECTOR) + 8, HANDLER >> 32),
    ];
    for (address, entry) in tables {
        memory.write_obj(entry, GuestAddress(address))?;
    }
    memory.write_obj(0_u128, GuestAddress(DATA))?;
    for (address, program) in [(CODE, PROGRAM.as_slice()), (WAITER, &WAIT), (HANDLER, &HANDLE)] {
        memory.write_slice(program, GuestAddress(address))?;
    }
    Ok(())
}

/// A vCPU that is about to run 64-bit code, also if it is not the first.
fn vcpu(vm: &Vm, id: u64, cpuid: &CpuId, code: u64) -> Result<VcpuFd, VmError> {
    let vcpu = vm.fd().create_vcpu(id).map_err(step("KVM_CREATE_VCPU"))?;
    vcpu.set_cpuid2(cpuid).map_err(step("KVM_SET_CPUID2"))?;
    let mut sregs = vcpu.get_sregs().map_err(step("KVM_GET_SREGS"))?;
    enter_long_mode(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(step("KVM_SET_SREGS"))?;
    let regs = kvm_regs { rip: code, rsp: STACK, rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&regs).map_err(step("KVM_SET_REGS"))?;
    vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).map_err(step("KVM_SET_MP_STATE"))?;
    Ok(vcpu)
}

/// The way of a device's interrupt and of a driver's doorbell.
fn interrupt(vm: &Vm, vcpu: &mut VcpuFd) -> Result<(), ProbeError> {
    let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| ProbeError::Event { source });
    let (irqfd, doorbell) = (event()?, event()?);
    // A pin that the legacy controllers do not have.
    let pin = mmio::gsi(Slot(SLOTS as u8 - 1));
    route(vm, pin)?;
    accept(vcpu)?;
    vm.fd().register_irqfd(&irqfd, pin).map_err(step("KVM_IRQFD"))?;
    let address = IoEventAddress::Mmio(DOORBELL);
    vm.fd().register_ioevent(&doorbell, &address, 1_u32).map_err(step("KVM_IOEVENTFD"))?;
    irqfd.write(1).map_err(|source| ProbeError::Event { source })?;
    expect(vcpu, Stage::Interrupt, INTERRUPTED)?;
    doorbell.read().map(drop).map_err(|_| ProbeError::Doorbell)
}

/// Sends a pin of the IOAPIC to the second vCPU.
fn route(vm: &Vm, pin: u32) -> Result<(), VmError> {
    let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, ..kvm_irqchip::default() };
    vm.fd().get_irqchip(&mut chip).map_err(step("KVM_GET_IRQCHIP"))?;
    // Fixed, physical, edge, not masked: all zero. The destination is an APIC id.
    let entry = u64::from(VECTOR) | 1 << 56;
    // SAFETY: KVM filled this member of the union, by the chip's number; all its fields are integers.
    let table = unsafe { &mut chip.chip.ioapic.redirtbl };
    if let Some(place) = table.get_mut(pin as usize) {
        place.bits = entry;
    }
    vm.fd().set_irqchip(&chip).map_err(step("KVM_SET_IRQCHIP"))
}

/// Enables a vCPU's local APIC.
fn accept(vcpu: &VcpuFd) -> Result<(), VmError> {
    /// The spurious interrupt vector register: its bit 8, in the second byte, is the APIC's own switch.
    const SPURIOUS: usize = 0xf0;
    let mut lapic = vcpu.get_lapic().map_err(step("KVM_GET_LAPIC"))?;
    if let Some(byte) = lapic.regs.get_mut(SPURIOUS + 1) {
        *byte |= 1;
    }
    vcpu.set_lapic(&lapic).map_err(step("KVM_SET_LAPIC"))
}

fn expect(vcpu: &mut VcpuFd, stage: Stage, word: u8) -> Result<(), ProbeError> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(VERDICT_PORT, [said])) if *said == word => return Ok(()),
            Ok(VcpuExit::IoOut(..)) => return Err(ProbeError::Wrong { stage }),
            Ok(exit) => return Err(ProbeError::Exit { stage, exit: format!("{exit:?}") }),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(source) => return Err(VmError::Step { step: "KVM_RUN", source }.into()),
        }
    }
}

fn enter_long_mode(sregs: &mut kvm_sregs) {
    const CR0_PE_MP_ET_NE_WP_PG: u64 = 0x8001_0033;
    const CR4_PAE_OSFXSR_OSXMMEXCPT_OSXSAVE: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18;
    const EFER_LME_LMA: u64 = 0x500;
    sregs.cr0 = CR0_PE_MP_ET_NE_WP_PG;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE_OSFXSR_OSXMMEXCPT_OSXSAVE;
    sregs.efer = EFER_LME_LMA;
    let flat = kvm_segment { limit: 0xffff_ffff, present: 1, s: 1, g: 1, ..kvm_segment::default() };
    sregs.cs = kvm_segment { type_: 0xb, selector: CODE_SEGMENT, l: 1, ..flat };
    let data = kvm_segment { type_: 0x3, selector: 0x10, db: 1, ..flat };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (DESCRIPTORS, 0xf);
    (sregs.idt.base, sregs.idt.limit) = (INTERRUPTS, 0xfff);
}
