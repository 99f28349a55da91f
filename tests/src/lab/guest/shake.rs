//! A load that brings faults of the lab's emulation out: it makes all other processors of the lab stand still, over and
//! over.
//!
//! A locked addition to a number that lies across a cache line cannot be made atomic by QEMU's translation, so QEMU
//! asks every other vCPU to leave its loop and does it alone. That is what a nested guest must survive at any moment
//! (see `mend`).

use std::arch::asm;
use std::thread;
use std::time::Duration;

/// About 2,500 times a second, with what a timer's wake-up takes.
const PAUSE: Duration = Duration::from_micros(300);
/// The last two bytes of one line are the number's first two.
const ACROSS: usize = 62;

/// Two cache lines.
#[repr(align(64))]
struct Lines([u8; 128]);

/// Never returns.
pub fn shake() -> ! {
    let mut lines = Lines([0; 128]);
    let number = lines.0[ACROSS..].as_mut_ptr();
    loop {
        // SAFETY: the four bytes at `number` are inside `lines`, which lives on and is read by nobody. The instruction
        // writes those and the flags only.
        unsafe { asm!("lock add dword ptr [{}], 1", in(reg) number, options(nostack)) };
        thread::sleep(PAUSE);
    }
}
