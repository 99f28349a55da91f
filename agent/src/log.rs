//! One line per event on the console, which the host keeps the tail of. Sparse: every byte is a trip to the VMM.

use std::{error::Error, fmt::Write};

/// Prints one line. A console that fails is no reason to die: nobody is left to tell.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "bulkhead-agent: {}", format_args!($($arg)*));
    }};
}

/// An error and its causes on one line, as a user reads it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
