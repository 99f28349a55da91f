//! Newer engines than the machine's: containerd, docker and podman of later releases of Debian, unpacked in the cache.
//!
//! ```text
//!  packages of a newer Debian ─▶ dpkg-deb -x ─▶ each says its version ─▶ cache/engines-SUITE
//! ```
//!
//! Programs in Go link little: those of containerd and docker ask for a C library of 2.34 and for libsystemd, which Debian 12 has. So
//! they come without what they depend on, are started where they lie, and start each other by PATH. The lab shows the cache at its
//! usual path.
//!
//! podman and what it starts want the libraries of their own release. These are beside them, and programs of Debian 12 can do with
//! them. So a test puts the tree over its `/usr`, in a mount namespace of its own (`over_usr`).

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
/// podman, and what it starts. Of what they depend on the libraries come along.
const WITH_LIBRARIES: [&str; 5] = ["podman", "conmon", "netavark", "aardvark-dns", "nftables"];
/// Must start on this machine with the libraries of the tree.
const OWN_LIBRARIES: [&str; 4] =
    ["usr/bin/podman", "usr/bin/conmon", "usr/lib/podman/netavark", "usr/sbin/nft"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
/// Must start on this machine.
const PROGRAMS: [&str; 4] = ["usr/bin/containerd", "usr/bin/ctr", "usr/bin/docker", "usr/sbin/dockerd"];
/// Names, in the tree, the packages it was made for: another list makes another tree.
const MADE_FOR: &str = "made-for";

/// Where the tree of a suite is, if it was fetched.
#[must_use]
pub fn place(suite: Suite) -> PathBuf {
    tree_in(&places::cache(), suite)
}

/// Commands that put the tree of a suite over `/usr`. They are for a mount namespace of one's own; what is mounted below `/usr` is hidden.
#[must_use]
pub fn over_usr(suite: Suite) -> String {
    format!("mount -t overlay -o ro,lowerdir={}/usr:/usr overlay /usr", place(suite).display())
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

/// What a tree is made for.
fn wanted() -> String {
    [&PACKAGES[..], &WITH_LIBRARIES].concat().join(" ")
}

fn prepare_one(cache: &Path, suite: Suite) -> Result<(), Error> {
    let tree = tree_in(cache, suite);
    let wanted = wanted();
    if fs::read_to_string(tree.join(MADE_FOR)).is_ok_and(|made_for| made_for == wanted) {
        return Ok(());
    }
    eprintln!("lab: fetching containerd, docker and podman of Debian {} (120 MB, once)", suite.name());
    // A fetch that was killed may have left it.
    let place = cache.join(format!("engines-{}.new", suite.name()));
    remove(&place)?;
    let made = make(&place, &tree, suite.name(), &wanted);
    remove(&place)?;
    made.map_err(|source| Error::Newer { suite: suite.name(), source: Box::new(source) })
}

fn make(place: &Path, tree: &Path, suite: &str, wanted: &str) -> Result<(), Error> {
    let staging = place.join("tree");
    let apt = Apt::of(place.join("apt"), &[suite])?;
    let mut packages = apt.plan(&WITH_LIBRARIES, suite)?;
    packages.retain(|name| name.starts_with("lib"));
    packages.extend([&PACKAGES[..], &WITH_LIBRARIES].concat().into_iter().map(str::to_owned));
    apt.unpack_alone(&packages.iter().map(String::as_str).collect::<Vec<_>>(), suite, &staging)?;
    // A library may be missing: better known now than in the middle of a test.
    for program in PROGRAMS {
        run(Command::new(staging.join(program)).arg("--version"))?;
    }
    for program in OWN_LIBRARIES {
        let mut command = Command::new(staging.join(LOADER));
        command.arg("--library-path").arg(staging.join(LIBRARIES));
        run(command.arg(staging.join(program)).arg("--version"))?;
    }
    let made_for = staging.join(MADE_FOR);
    fs::write(&made_for, wanted).map_err(Error::file("write", &made_for))?;
    remove(tree)?;
    fs::rename(&staging, tree).map_err(Error::file("rename", &staging))
}

#[cfg(test)]
#[path = "newer_tests.rs"]
mod tests;
