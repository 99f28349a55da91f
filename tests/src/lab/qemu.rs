//! The QEMU that labs run on: the machine's own, or one unpacked beside it with all its libraries.
//!
//! An unpacked one is started by its own dynamic loader with its own libraries and told where its firmware is, so it
//! needs nothing of the machine's release and changes nothing in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
/// What has to be installed where no other QEMU is to be had.
const INSTALL: &str = "deploy/install-lab-packages.sh";

/// A QEMU that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qemu {
    /// A program of this machine.
    Installed(PathBuf),
    /// A directory with the unpacked packages of QEMU and of all that it links.
    Unpacked(PathBuf),
}

impl Qemu {
    /// What is at `path`: a program, or a directory with an unpacked one.
    ///
    /// # Errors
    /// Neither is there.
    pub fn at(path: &Path) -> Result<Self, Error> {
        if path.is_file() {
            return Ok(Self::Installed(path.to_owned()));
        }
        match [LOADER, PROGRAM].iter().find(|file| !path.join(file).exists()) {
            None => Ok(Self::Unpacked(path.to_owned())),
            Some(file) => {
                Err(Error::Missing { what: path.join(file).to_string_lossy().into_owned(), hint: INSTALL })
            }
        }
    }

    /// The command that starts it, without options of its own but for where its data is.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::Installed(program) => Command::new(program),
            Self::Unpacked(root) => {
                let mut command = Command::new(root.join(LOADER));
                command.arg("--library-path").arg(root.join(LIBRARIES)).arg(root.join(PROGRAM));
                for data in ["usr/share/qemu", "usr/share/seabios"] {
                    command.arg("-L").arg(OsString::from(root.join(data)));
                }
                command
            }
        }
    }
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
