//! What the VMM says on stderr: one line for each event, at a limited rate, since a guest can cause most of them.
//!
//! The sandbox server owns stderr and copies it into its own log; there is no level and no format to choose. A line may
//! have words of the guest in it, and may end on a person's terminal: what is no plain text is escaped.

use std::{
    error::Error,
    fmt::{self, Write as _},
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
    format!("bulkhead-vmm: {}\n", escaped(&message.to_string()))
}

/// The text as one line that steers no terminal. Control characters, line ends among them, and what has no glyph or turns
/// the writing direction are shown as in JSON (`\u001b`).
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        // `escape_debug` keeps what can be printed, but for these three.
        if matches!(letter, '\'' | '"' | '\\') || letter.escape_debug().len() == 1 {
            line.push(letter);
        } else {
            // Writing to a String does not fail.
            let _ = write!(line, "\\u{:04x}", u32::from(letter));
        }
    }
    line
}

#[cfg(test)]
mod tests;
