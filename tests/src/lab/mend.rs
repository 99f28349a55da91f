//! Takes one fault out of QEMU's emulation of SVM, in a copy of the program.
//!
//! When VMRUN injects an interrupt, `helper_vmrun` writes the vector into `exception_index` and delivers the interrupt
//! at once, but leaves the vector there. Should anything ask the vCPU to leave its loop before the next exit (a store
//! that needs all other vCPUs to stand still does), the loop takes the vector for a pending exception and delivers
//! it again. A nested guest that was in user mode then enters its kernel twice: it resets, or falls silent.
//! QEMU 7.2, 10.0 and 11.1 have the fault.
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

/// Mends the program in memory. False, and nothing changed, unless there is exactly one place to mend.
#[must_use]
pub fn mend(program: &mut [u8]) -> bool {
    let mut places = program.windows(STORES.len() + NEAR).enumerate().filter(|(_, code)| is_fault(code));
    let (Some((place, _)), None) = (places.next(), places.next()) else { return false };
    program[place..place + STORE].copy_from_slice(&NOP);
    true
}

fn is_fault(code: &[u8]) -> bool {
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
