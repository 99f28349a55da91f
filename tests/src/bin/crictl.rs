//! `crictl` for tests (`crictl` of the library). Errors are printed here and nowhere else.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use bulkhead_sys::chain;
use bulkhead_tests::crictl::{Cli, run};
use clap::Parser as _;

fn main() -> ExitCode {
    let Err(error) = run(Cli::parse()) else { return ExitCode::SUCCESS };
    // In the two forms of crictl's logger; the time is of no use here.
    if io::stderr().is_terminal() {
        eprintln!("FATA[0000] {}", chain(&error));
    } else {
        eprintln!("time=\"\" level=fatal msg={:?}", chain(&error));
    }
    ExitCode::FAILURE
}
