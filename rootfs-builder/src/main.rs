//! The command: parse, build, print the chain of causes, exit code (0 done, 1 failed, 2 wrong usage).

use std::path::PathBuf;
use std::process::ExitCode;

use bulkhead_rootfs_builder::{BuildError, Extra, Initramfs};
use bulkhead_sys::chain;
use clap::Parser;

/// Packs a static agent into an uncompressed, reproducible initramfs.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The agent, a static x86-64 program: becomes /init.
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
    /// Where to write the image; an existing file is replaced in one step.
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// One more file for the image; may be given several times.
    #[arg(long, value_name = "DESTINATION=SOURCE")]
    extra: Vec<Extra>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match build(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-rootfs-builder: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn build(arguments: &Arguments) -> Result<(), BuildError> {
    Initramfs::new(&arguments.agent, &arguments.extra)?.write_file(&arguments.output)
}
