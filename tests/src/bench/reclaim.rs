//! Memory that a container frees, and how much of it the host has back.

use std::{
    io,
    time::{Duration, Instant},
};

use super::memory;
use crate::host::{Container, DEADLINE, until};

/// What a container takes and frees again, by `probe hold`.
pub const HELD_MIB: u64 = 256;
/// Of what was freed, this must come back.
pub const SHARE: f64 = 0.9;

/// What came back, and how long it took from the moment the container had freed it until `SHARE` was back.
#[derive(Debug, Clone, Copy)]
pub struct Reclaimed {
    pub share: f64,
    pub took: Duration,
}

/// Runs the container, which must be created with `probe hold HELD_MIB`, until its memory is back.
///
/// # Errors
/// When the VMM's memory cannot be read. Panics when the memory does not come back.
pub fn measure(container: &Container<'_>, vmm: u32, guest_kib: u64) -> io::Result<Reclaimed> {
    #[allow(clippy::cast_precision_loss)]
    let mib = || memory::of(vmm, guest_kib).map(|memory| memory.guest as f64 / 1024.0);
    #[allow(clippy::cast_precision_loss)]
    let held = HELD_MIB as f64;
    container.start();
    container.until_stdout("held");
    let before = mib()?;
    container.kill("USR1");
    container.until_stdout("freed");
    let freed = Instant::now();
    let share = until("freed memory is back with the host", DEADLINE, || {
        let share = (before - mib().ok()?) / held;
        (share >= SHARE).then_some(share)
    });
    Ok(Reclaimed { share, took: freed.elapsed() })
}
