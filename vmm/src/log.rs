//! What the VMM says on stderr: one line for each event, at a limited rate, since a guest can cause most of them.
//!
//! The sandbox server owns stderr and copies it into its own log; there is no level and no format to choose.

use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering},
};

use bulkhead_sys::chain;

/// Lines that a guest can cause in the life of one VM.
const LIMIT: u32 = 100;
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Reports what a guest caused, with its chain of causes; silent after `LIMIT` lines.
pub fn limited(error: &dyn Error) {
    let written = WRITTEN.fetch_add(1, Ordering::Relaxed);
    if written < LIMIT {
        eprintln!("bulkhead-vmm: {}", chain(error));
    } else if written == LIMIT {
        eprintln!("bulkhead-vmm: further messages about the guest are left out");
    } else {
        // Stay there: the counter must not come round again.
        WRITTEN.store(LIMIT + 1, Ordering::Relaxed);
    }
}
