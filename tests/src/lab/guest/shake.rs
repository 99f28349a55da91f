//! A load that brings faults of the lab's emulation out (see `mend`). It makes all other processors of the lab stand
//! still, over and over, and loads the state of a processor's FPU as often as it can.
//!
//! A locked addition to a number that lies across a cache line cannot be made atomic by QEMU's translation, so QEMU
//! asks every other vCPU to leave its loop and does it alone. That is what a nested guest must survive at any moment.
//!
//! A program that loads the state of its FPU changed flags of the first vCPU, whatever vCPU it ran on.

use std::arch::asm;
use std::arch::x86_64::{_fxrstor, _fxsave};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// About 2,500 times a second, with what a timer's wake-up takes.
const PAUSE: Duration = Duration::from_micros(300);
/// The last two bytes of one line are the number's first two.
const ACROSS: usize = 62;
/// How often the FPU is loaded between two pauses.
const LOADS: u32 = 200;

/// Two cache lines.
#[repr(align(64))]
struct Lines([u8; 128]);

/// The state of an FPU as FXSAVE writes it.
#[repr(align(16))]
struct Fpu([u8; 512]);

/// Never returns.
pub fn shake() -> ! {
    thread::spawn(load_fpu);
    let mut lines = Lines([0; 128]);
    let number = lines.0[ACROSS..].as_mut_ptr();
    loop {
        // SAFETY: the four bytes at `number` are inside `lines`, which lives on and is read by nobody. The instruction
        // writes those and the flags only.
        unsafe { asm!("lock add dword ptr [{}], 1", in(reg) number, options(nostack)) };
        thread::sleep(PAUSE);
    }
}

/// Loads the state that the FPU has, on the last processor, so that the first one is another.
fn load_fpu() -> ! {
    let last = thread::available_parallelism().map_or(0, |count| count.get() - 1);
    let mut set = CpuSet::new();
    if let Err(error) = set.set(last).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
        eprintln!("lab: the FPU is loaded on any processor: {error}");
    }
    let mut fpu = Fpu([0; 512]);
    loop {
        for _ in 0..LOADS {
            // SAFETY: `fpu` is as long and as aligned as both instructions ask. What is loaded is what was just saved.
            unsafe {
                _fxsave(fpu.0.as_mut_ptr());
                _fxrstor(fpu.0.as_ptr());
            }
        }
        thread::sleep(PAUSE);
    }
}
