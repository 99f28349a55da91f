//! The guest's words to the host.

use std::{fs::File, io::Write};

/// One line on the guest's console, marked so that the kernel's own lines are not taken for it.
pub(crate) fn say(console: &mut File, line: &str) {
    console.write_all(format!("GUEST {line}\n").as_bytes()).unwrap();
}
