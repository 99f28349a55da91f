//! PID 1 of the guest, and in a process of its own the set-up of each container (`container-init`).

use std::{env, process::ExitCode};

use bulkhead_agent::container;

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|arg| arg == "container-init") {
        return container::init::main();
    }
    ExitCode::FAILURE
}
