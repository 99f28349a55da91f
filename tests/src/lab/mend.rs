//! Takes two faults out of QEMU's emulation of SVM, in a copy of the program. QEMU 7.2, 10.0 and 11.1 have both.
//!
//! # An injected interrupt is delivered twice
//!
//! When VMRUN injects an interrupt, `helper_vmrun` writes the vector into `exception_index` and delivers the interrupt
//! at once, but leaves the vector there. Should anything ask the vCPU to leave its loop before the next exit (a store
//! that needs all other vCPUs to stand still does), the loop takes the vector for a pending exception and delivers
//! it again. A nested guest that was in user mode then enters its kernel twice: it resets, or falls silent.
//!
//! The delivery does not read `exception_index`, so the mend is to leave out that one store:
//!
//! ```text
//!   mov  %vector, exception_index(%env)        89 /r disp32            becomes a six-byte nop
//!   movl $0, exception_is_int(%env)            c7 /0 disp32 imm32
//!   movq $-1, exception_next_eip(%env)         48 c7 /0 disp32 imm32
//!   ...                                        a test for logging, 13 bytes
//!   mov  $1, %edx; mov %env, %rdi; call        ba 01 00 00 00 48 89 .. e8    the delivery
//! ```
//!
//! Injected exceptions write the same fields and go another way; without the call right after it, nothing is touched.
//!
//! # One vCPU overwrites the flags of another
//!
//! Whatever vCPU loads the state of its FPU (each switch between two programs does), `cpu_clear_ignne` takes a flag of
//! MS-DOS times off the *first* vCPU: a plain read, change and write of that vCPU's `hflags2`, while the first vCPU
//! runs. The same word tells whether the first vCPU translates addresses of a nested guest, and whether it takes
//! interrupts. Such a change is lost when it falls between the read and the write. The first vCPU then goes on in the
//! lab's kernel with the nested guest's page tables, and its state is saved as that of the guest; or interrupts stay
//! off. So guests fell silent, died by a triple fault, or the lab's kernel died.
//!
//! The flag is set by a write to port 0xf0 only, which no kernel of a lab does, so the mend is to clear nothing:
//!
//! ```text
//!   call object_dynamic_cast_assert            e8 rel32
//!   andl $~0x80, hflags2(%cpu)                 81 /4 disp32 imm32      becomes a ten-byte nop
//! ```

/// A fault that the program was expected to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// VMRUN leaves an injected vector behind.
    Injection,
    /// The flags of the first vCPU are written by all.
    SharedFlags,
}

/// Raised when [`mend`] changes more than before: copies that were made earlier are made anew.
pub const GENERATION: u32 = 2;

/// The instructions from the store to the end of the third; `None` stands for any byte.
const STORES: [Option<u8>; 27] = {
    const X: Option<u8> = None;
    const fn b(byte: u8) -> Option<u8> {
        Some(byte)
    }
    [
        // The offset of `exception_index` is negative, since it lies before `env`; those of the other two are not.
        b(0x89),
        X,
        X,
        X,
        b(0xff),
        b(0xff),
        b(0xc7),
        X,
        X,
        X,
        b(0),
        b(0),
        b(0),
        b(0),
        b(0),
        b(0),
        b(0x48),
        b(0xc7),
        X,
        X,
        X,
        b(0),
        b(0),
        b(0xff),
        b(0xff),
        b(0xff),
        b(0xff),
    ]
};
/// Length of the instruction that is left out.
const STORE: usize = 6;
/// `nopw 0(%rax,%rax,1)`
const NOP: [u8; STORE] = [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00];
/// How far after the stores the call may begin.
const NEAR: usize = 32;

/// `nopw %cs:0(%rax,%rax,1)`
const LONG_NOP: [u8; 10] = [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00];
/// `call` with its displacement.
const CALL: usize = 5;

/// Mends the program in memory, and names the faults that were not found. Of such a fault nothing is changed: it is
/// found when there is exactly one place that looks like it.
#[must_use]
pub fn mend(program: &mut [u8]) -> Vec<Fault> {
    let mut missing = Vec::new();
    match only(program, STORES.len() + NEAR, is_injection) {
        Some(place) => program[place..place + STORE].copy_from_slice(&NOP),
        None => missing.push(Fault::Injection),
    }
    match only(program, CALL + LONG_NOP.len(), is_shared_flags) {
        Some(place) => program[place + CALL..][..LONG_NOP.len()].copy_from_slice(&LONG_NOP),
        None => missing.push(Fault::SharedFlags),
    }
    missing
}

/// The place of the only window of `length` bytes that is what `wanted` tells.
fn only(program: &[u8], length: usize, wanted: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let mut places = program.windows(length).enumerate().filter(|(_, code)| wanted(code));
    let (Some((place, _)), None) = (places.next(), places.next()) else { return None };
    Some(place)
}

/// ModRM of `and` (/4) to memory at a register plus a 32-bit offset, not a SIB.
fn is_shared_flags(code: &[u8]) -> bool {
    let (call, and) = code.split_at(CALL);
    call[0] == 0xe8
        && and[0] == 0x81
        && and[1] & 0xf8 == 0xa0
        && and[1] & 7 != 4
        && and[6..] == (!0x80u32).to_le_bytes()
}

fn is_injection(code: &[u8]) -> bool {
    let (stores, after) = code.split_at(STORES.len());
    let matches = stores.iter().zip(STORES).all(|(byte, wanted)| wanted.is_none_or(|wanted| *byte == wanted));
    matches && same_base(stores) && after.windows(9).any(is_delivery)
}

/// All three stores are to memory at the same register plus a 32-bit offset (ModRM: mod 10, the same r/m, not a SIB).
fn same_base(stores: &[u8]) -> bool {
    let operand = |at: usize| stores[at] & 0xc7;
    let base = operand(1);
    base & 0xc0 == 0x80 && base & 7 != 4 && [7, 18].iter().all(|at| operand(*at) == base)
}

/// `do_interrupt_x86_hardirq(env, vector, 1)`, the vector being in place.
fn is_delivery(code: &[u8]) -> bool {
    code.starts_with(&[0xba, 1, 0, 0, 0, 0x48, 0x89]) && code[8] == 0xe8
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
