//! The QEMU that labs run on: one unpacked beside the machine's programs with all its libraries, or the machine's own.
//!
//! ```text
//!  packages of a newer Debian ─▶ cache/qemu (started by its own loader) ─┐
//!  /usr/bin/qemu-system-x86_64, where those cannot be had ─▶ a copy ─────┴─▶ mend ─▶ QEMU of the labs
//! ```
//!
//! An unpacked one is started by its own dynamic loader with its own libraries and told where its firmware is, so it
//! needs nothing of the machine's release and changes nothing in it. Either is mended ([`mend`]), in a copy.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::Apt;
use super::tools::{program, remove, run};
use super::{Error, mend};

/// QEMU 11 sets its interrupt requests atomically; older ones lose some. Debian 13 has one for its users.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];
const PACKAGE: &str = "qemu-system-x86";

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
/// What has to be installed where no other QEMU is to be had.
const INSTALL: &str = "deploy/install-packages.sh qemu";

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

/// Finds or makes the QEMU of the labs in the cache, whose lock the caller holds.
///
/// # Errors
/// The newer one cannot be had, and none is installed.
pub fn prepare(cache: &Path) -> Result<Qemu, Error> {
    let generation = mend::GENERATION;
    let unpacked = cache.join(format!("qemu-{generation}"));
    let copy = cache.join(format!("qemu-system-x86_64-{generation}"));
    if unpacked.exists() {
        return Qemu::at(&unpacked);
    }
    if copy.exists() {
        return Qemu::at(&copy);
    }
    // That of the first generation.
    remove(&cache.join("qemu"))?;
    eprintln!("lab: fetching QEMU of {} (40 MB, once)", SUITES[1]);
    match unpack(cache, &unpacked) {
        Ok(qemu) => Ok(qemu),
        Err(error) => {
            eprintln!("lab: no QEMU of {}, so the installed one has to do: {error}", SUITES[1]);
            let staging = cache.join("qemu-system-x86_64.new");
            mended(&program("qemu-system-x86_64", INSTALL)?, &staging)?;
            fs::rename(&staging, &copy).map_err(Error::file("rename", &staging))?;
            Qemu::at(&copy)
        }
    }
}

fn unpack(cache: &Path, to: &Path) -> Result<Qemu, Error> {
    // A fetch that was killed may have left it.
    let place = cache.join("qemu.new");
    remove(&place)?;
    let done = unpack_in(&place, to);
    remove(&place)?;
    done
}

fn unpack_in(place: &Path, to: &Path) -> Result<Qemu, Error> {
    let tree = place.join("tree");
    Apt::of(place.join("apt"), &SUITES)?.unpack(PACKAGE, SUITES[1], &tree)?;
    let program = tree.join(PROGRAM);
    mended(&program, &program)?;
    // A library may be missing, or the processor too old for it: better known now than at each lab's start.
    run(Qemu::at(&tree)?.command().arg("--version"))?;
    fs::rename(&tree, to).map_err(Error::file("rename", &tree))?;
    Qemu::at(to)
}

/// Writes a mended copy of `program` to `to`; says which known faults are not found in it.
fn mended(program: &Path, to: &Path) -> Result<(), Error> {
    let mut code = fs::read(program).map_err(Error::file("read", program))?;
    for fault in mend::mend(&mut code) {
        eprintln!(
            "lab: {}: a known fault is not found and not mended (docs/lab.md): {fault:?}",
            program.display()
        );
    }
    fs::write(to, code).map_err(Error::file("write", to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(Error::file("chmod", to))
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
