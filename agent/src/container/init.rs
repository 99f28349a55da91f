//! `container-init`: the single-threaded process that becomes the container's first.

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
