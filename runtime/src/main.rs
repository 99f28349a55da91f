//! `bulkhead`, and by its other name containerd's shim: parse, run, print the error, exit code.

use std::process::ExitCode;

use bulkhead_runtime::{cli, shim};

fn main() -> ExitCode {
    if shim::is_called() {
        return ExitCode::from(shim::main());
    }
    ExitCode::from(cli::main())
}
