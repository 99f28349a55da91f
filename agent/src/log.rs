//! One line per event on the console, which the host keeps the tail of. Sparse: every byte is a trip to the VMM.

/// Prints one line. A console that fails is no reason to die: nobody is left to tell.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "bulkhead-agent: {}", format_args!($($arg)*));
    }};
}
