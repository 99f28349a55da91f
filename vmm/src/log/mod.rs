//! What the VMM says on stderr: one line for each event, at a limited rate, since a guest can cause most of them.
//!
//! The sandbox server owns stderr and copies it into its own log; there is no level and no format to choose. A line may
//! have words of the guest in it, and may end on a person's terminal: what is no plain text is escaped.

use std::{
    error::Error,
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use bulkhead_sys::{chain, text};

/// Lines that a guest can cause in the life of one VM.
const LIMIT: u32 = 100;
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Reports what a guest caused, with its chain of causes; silent after `LIMIT` lines.
pub fn limited(error: &dyn Error) {
    let written = WRITTEN.fetch_add(1, Ordering::Relaxed);
    if written < LIMIT {
        line(&chain(error));
    } else if written == LIMIT {
        line(&"further messages about the guest are left out");
    } else {
        // Stay there: the counter must not come round again.
        WRITTEN.store(LIMIT + 1, Ordering::Relaxed);
    }
}

/// Writes one line, whatever is in `message`.
pub fn line(message: &dyn fmt::Display) {
    eprint!("{}", rendered(message));
}

/// The line as it is written, with its end.
fn rendered(message: &dyn fmt::Display) -> String {
    format!("bulkhead-vmm: {}\n", text::line(&message.to_string()))
}

#[cfg(test)]
mod tests;
