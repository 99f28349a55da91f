//! An error and its causes on one line, as a user reads it.

use std::{error::Error, fmt::Write as _};

/// The messages from the outermost step to the first cause, joined by `: `. No message repeats its own cause.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String never fails.
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests;
