//! What is known of a vCPU at its end, in one line: its registers, and its last exits to this process.
//!
//!   each exit ─▶ `Trail` (the last `KEPT`) ┐
//!   KVM_GET_REGS, _SREGS, _VCPU_EVENTS    ─┴─▶ "vCPU 0: rip=… cr2=… …; last exits: mmio write 0xd0000050 12µs ago …"
//!
//! kvm-amd resets the vCPU before it reports a shutdown (the VMCB is undefined then), so there the registers say nothing,
//! and the line says that. What remains is the trail with the rip of each exit, which KVM leaves in the shared page
//! (KVM_CAP_SYNC_REGS) at no system call.

use std::{
    fmt::{self, Write as _},
    time::Instant,
};

use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, kvm_regs, kvm_run, kvm_sregs, kvm_vcpu_events,
};
use kvm_ioctls::VcpuFd;

/// Exits that are remembered.
const KEPT: usize = 6;
/// Where a processor starts after INIT: base of the code segment, and instruction pointer.
const INITIAL: (u64, u64) = (0xffff_0000, 0xfff0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitKind {
    MmioRead,
    MmioWrite,
    PortRead,
    PortWrite,
    Interrupted,
    BusLock,
    Other,
}

impl ExitKind {
    fn name(self) -> &'static str {
        match self {
            Self::MmioRead => "mmio read",
            Self::MmioWrite => "mmio write",
            Self::PortRead => "port read",
            Self::PortWrite => "port write",
            Self::Interrupted => "interrupted",
            Self::BusLock => "bus lock",
            Self::Other => "other",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Exit {
    kind: ExitKind,
    /// Guest address or port; 0 for the kinds that have none.
    place: u64,
    /// Where the guest was, when KVM says so.
    rip: Option<u64>,
    at: Instant,
}

/// The last exits of one vCPU.
#[derive(Debug)]
pub(super) struct Trail {
    exits: [Option<Exit>; KEPT],
    next: usize,
}

impl Trail {
    pub(super) fn new() -> Self {
        Self { exits: [None; KEPT], next: 0 }
    }

    pub(super) fn add(&mut self, kind: ExitKind, place: u64, rip: Option<u64>) {
        if let Some(exit) = self.exits.get_mut(self.next) {
            *exit = Some(Exit { kind, place, rip, at: Instant::now() });
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// From the latest on.
    fn latest(&self) -> impl Iterator<Item = &Exit> {
        let (newer, older) = self.exits.split_at(self.next);
        newer.iter().rev().chain(older.iter().rev()).flatten()
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("last exits: ")?;
        if self.latest().next().is_none() {
            return f.write_str("none");
        }
        let now = Instant::now();
        for (index, exit) in self.latest().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", exit.kind.name())?;
            if exit.place != 0 {
                write!(f, " {:#x}", exit.place)?;
            }
            if let Some(rip) = exit.rip {
                write!(f, " at {rip:#x}")?;
            }
            write!(f, " {:.1?} ago", now.saturating_duration_since(exit.at))?;
        }
        Ok(())
    }
}

/// The whole line. `id` is the vCPU's number.
pub(super) fn line(id: u8, fd: &VcpuFd, trail: &Trail) -> String {
    let registers = match (fd.get_regs(), fd.get_sregs()) {
        (Ok(regs), Ok(sregs)) => registers(&regs, &sregs, fd.get_vcpu_events().ok().as_ref()),
        (Err(error), _) | (_, Err(error)) => format!("registers: {error}"),
    };
    format!("vCPU {id}: {registers}; {trail}")
}

fn registers(regs: &kvm_regs, sregs: &kvm_sregs, events: Option<&kvm_vcpu_events>) -> String {
    if (sregs.cs.base, regs.rip) == INITIAL {
        return "registers lost (KVM had reset the vCPU)".into();
    }
    let mut text = format!(
        "rip={:#x} rsp={:#x} rflags={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x} idt={:#x}+{:#x}",
        regs.rip,
        regs.rsp,
        regs.rflags,
        sregs.cr0,
        sregs.cr2,
        sregs.cr3,
        sregs.cr4,
        sregs.efer,
        sregs.idt.base,
        sregs.idt.limit,
    );
    if let Some(events) = events {
        let exception = events.exception;
        if exception.injected != 0 || exception.pending != 0 {
            // Writing to a `String` does not fail.
            let _ = write!(text, " exception={} error={:#x}", exception.nr, exception.error_code);
        }
        if events.interrupt.injected != 0 {
            let _ = write!(text, " interrupt={:#x}", events.interrupt.nr);
        }
        if events.nmi.injected != 0 || events.nmi.pending != 0 {
            text.push_str(" nmi");
        }
    }
    text
}

/// What KVM says of an internal error (KVM_EXIT_INTERNAL_ERROR), which must be the reason of the last exit.
pub(super) fn internal_error(run: &kvm_run) -> String {
    // SAFETY: KVM filled this member of the union, by the exit's reason. Its fields are plain integers, and the union
    // is all of initialised memory, so that any member can be read.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    // SAFETY: as above; the members overlay each other, and the flags say whether the bytes are there.
    let emulation = unsafe { run.__bindgen_anon_1.emulation_failure };
    let name = match internal.suberror {
        KVM_INTERNAL_ERROR_EMULATION => {
            "an instruction that KVM cannot emulate: does this KVM run stock guests?"
        }
        KVM_INTERNAL_ERROR_SIMUL_EX => "exceptions at the same time",
        KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit while an event was delivered",
        KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "an exit that KVM does not know",
        _ => "unknown",
    };
    let mut text = format!("internal error {} ({name})", internal.suberror);
    let bytes = u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    if internal.suberror == KVM_INTERNAL_ERROR_EMULATION {
        // `ndata` counts the words that are set: the flags are the first, the instruction two more.
        if internal.ndata >= 3 && emulation.flags & bytes != 0 {
            // SAFETY: as above.
            let instruction = unsafe { emulation.__bindgen_anon_1.__bindgen_anon_1 };
            text.push_str(", instruction");
            for byte in instruction.insn_bytes.iter().take(instruction.insn_size.into()) {
                let _ = write!(text, " {byte:02x}");
            }
        }
    } else {
        for word in internal.data.iter().take(internal.ndata as usize) {
            let _ = write!(text, " {word:#x}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
