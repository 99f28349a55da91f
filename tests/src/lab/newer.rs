//! Newer engines than the machine's: containerd and docker of later releases of Debian, unpacked in the cache and started where they
//! lie.
//!
//! ```text
//!  packages of a newer Debian, without what they depend on ─▶ dpkg-deb -x ─▶ each says its version ─▶ cache/engines-SUITE
//! ```
//!
//! Programs in Go link little: these ask for a C library of 2.34 and for libsystemd, which Debian 12 has. So they need no
//! loader of their own, and start each other by PATH. The lab shows the cache at its usual path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::Apt;
use super::tools::{remove, run};
use super::{Error, places};

/// A newer Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 13: containerd 1.7, docker 26.
    Trixie,
    /// The one after it, which changes still: containerd 2.1 or later, docker 28 or later.
    Forky,
}

impl Suite {
    pub const ALL: [Self; 2] = [Self::Trixie, Self::Forky];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }
}

/// containerd with `ctr`, docker: the daemon and its command.
const PACKAGES: [&str; 3] = ["containerd", "docker.io", "docker-cli"];
/// Must start on this machine.
const PROGRAMS: [&str; 4] = ["usr/bin/containerd", "usr/bin/ctr", "usr/bin/docker", "usr/sbin/dockerd"];
/// Names, in the tree, the packages it was made for: another list makes another tree.
const MADE_FOR: &str = "made-for";

/// Where the tree of a suite is, if it was fetched.
#[must_use]
pub fn place(suite: Suite) -> PathBuf {
    tree_in(&places::cache(), suite)
}

fn tree_in(cache: &Path, suite: Suite) -> PathBuf {
    cache.join(format!("engines-{}", suite.name()))
}

/// Makes the trees in the cache, whose lock the caller holds, unless they are there.
///
/// # Errors
/// Packages that cannot be fetched or unpacked, programs that this machine cannot start.
pub fn prepare(cache: &Path) -> Result<(), Error> {
    Suite::ALL.into_iter().try_for_each(|suite| prepare_one(cache, suite))
}

fn prepare_one(cache: &Path, suite: Suite) -> Result<(), Error> {
    let tree = tree_in(cache, suite);
    let wanted = PACKAGES.join(" ");
    if fs::read_to_string(tree.join(MADE_FOR)).is_ok_and(|made_for| made_for == wanted) {
        return Ok(());
    }
    eprintln!("lab: fetching containerd and docker of Debian {} (60 MB, once)", suite.name());
    // A fetch that was killed may have left it.
    let place = cache.join(format!("engines-{}.new", suite.name()));
    remove(&place)?;
    let made = make(&place, &tree, suite.name(), &wanted);
    remove(&place)?;
    made.map_err(|source| Error::Newer { suite: suite.name(), source: Box::new(source) })
}

fn make(place: &Path, tree: &Path, suite: &str, wanted: &str) -> Result<(), Error> {
    let staging = place.join("tree");
    Apt::of(place.join("apt"), &[suite])?.unpack_alone(&PACKAGES, suite, &staging)?;
    // A library may be missing: better known now than in the middle of a test.
    for program in PROGRAMS {
        run(Command::new(staging.join(program)).arg("--version"))?;
    }
    let made_for = staging.join(MADE_FOR);
    fs::write(&made_for, wanted).map_err(Error::file("write", &made_for))?;
    remove(tree)?;
    fs::rename(&staging, tree).map_err(Error::file("rename", &staging))
}

#[cfg(test)]
#[path = "newer_tests.rs"]
mod tests;
