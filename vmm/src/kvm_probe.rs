//! Whether /dev/kvm runs stock guests: by running guest code, since the file's existence says little.
//!
//!   one page of 64-bit code: cmpxchg16b, xgetbv, SSE2 ─▶ one byte to a port ─▶ verdict       (with a deadline)
//!
//! Some machines offer a KVM that emulates guests in software and runs only patched ones: there the instructions that
//! any distribution's kernel uses fail or crawl. Not part of a VM's life; `bulkhead doctor` runs it as a process.

use std::{
    io,
    path::Path,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::errno;

use crate::memory::{HUGE_PAGE, Memory, MemoryError};

/// Hardware takes microseconds; software emulation of nested virtualization some hundred milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const CODE: u64 = 0x4000;
/// Sixteen aligned zero bytes; the code has the address in it.
const DATA: u64 = 0x5000;
const STACK: u64 = 0x8000;
const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 1 << 7;

const VERDICT_PORT: u16 = 0xe9;
const GOOD: u8 = b'Y';

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

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("open {}", path.display())]
    Open { path: &'static Path, source: io::Error },
    #[error("{step}")]
    Kvm { step: &'static str, source: errno::Error },
    #[error("guest memory for the probe")]
    Memory(#[from] MemoryError),
    #[error("write the probe's guest memory")]
    Write(#[from] GuestMemoryError),
    #[error("start the probe's thread")]
    Thread { source: io::Error },
    #[error("guest code that uses cmpxchg16b, xgetbv and SSE2 ended with {exit}")]
    Exit { exit: String },
    #[error("guest code computed a wrong result")]
    Wrong,
    #[error("a few instructions of guest code were not done after {DEADLINE:?}")]
    Slow,
}

/// Runs the probe on /dev/kvm. On `Slow` a thread is left behind in the guest: end the process.
pub fn probe() -> Result<(), ProbeError> {
    let path = Path::new("/dev/kvm");
    // kvm-ioctls keeps only the number of the error, so the file is opened here first.
    let open = std::fs::File::options().read(true).write(true).open(path);
    let file = open.map_err(|source| ProbeError::Open { path, source })?;
    drop(file);
    let (answer, answered) = sync_channel(1);
    thread::Builder::new()
        .name("probe".into())
        .spawn(move || answer.send(run()))
        .map_err(|source| ProbeError::Thread { source })?;
    match answered.recv_timeout(DEADLINE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(ProbeError::Slow),
        Err(RecvTimeoutError::Disconnected) => Err(ProbeError::Exit { exit: "a crash of the probe".into() }),
    }
}

fn run() -> Result<(), ProbeError> {
    let kvm = |step| move |source| ProbeError::Kvm { step, source };
    let memory = Memory::anonymous(HUGE_PAGE)?;
    for (table, entry) in
        [(PML4, PDPT | PRESENT_WRITABLE), (PDPT, PD | PRESENT_WRITABLE), (PD, LARGE_PAGE | PRESENT_WRITABLE)]
    {
        memory.write_obj(entry, GuestAddress(table))?;
    }
    memory.write_slice(&PROGRAM, GuestAddress(CODE))?;
    memory.write_obj(0_u128, GuestAddress(DATA))?;

    let system = Kvm::new().map_err(kvm("open /dev/kvm"))?;
    let vm = system.create_vm().map_err(kvm("KVM_CREATE_VM"))?;
    for (region, userspace_addr) in memory.regions() {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: region.guest,
            memory_size: region.size as u64,
            userspace_addr,
        };
        // SAFETY: the range is the mapping of `memory`, which outlives `vm` and its vCPU: it was made before them.
        unsafe { vm.set_user_memory_region(region) }.map_err(kvm("KVM_SET_USER_MEMORY_REGION"))?;
    }
    let mut vcpu = vm.create_vcpu(0).map_err(kvm("KVM_CREATE_VCPU"))?;
    let cpuid = system.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm("KVM_GET_SUPPORTED_CPUID"))?;
    vcpu.set_cpuid2(&cpuid).map_err(kvm("KVM_SET_CPUID2"))?;
    let mut sregs = vcpu.get_sregs().map_err(kvm("KVM_GET_SREGS"))?;
    enter_long_mode(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(kvm("KVM_SET_SREGS"))?;
    let regs = kvm_regs { rip: CODE, rsp: STACK, rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&regs).map_err(kvm("KVM_SET_REGS"))?;
    verdict(&mut vcpu)
}

fn verdict(vcpu: &mut VcpuFd) -> Result<(), ProbeError> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(VERDICT_PORT, [GOOD])) => return Ok(()),
            Ok(VcpuExit::IoOut(..)) => return Err(ProbeError::Wrong),
            Ok(exit) => return Err(ProbeError::Exit { exit: format!("{exit:?}") }),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(source) => return Err(ProbeError::Kvm { step: "KVM_RUN", source }),
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
    sregs.cs = kvm_segment { type_: 0xb, selector: 0x8, l: 1, ..flat };
    let data = kvm_segment { type_: 0x3, selector: 0x10, db: 1, ..flat };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
}
