//! The container engines in the lab: podman and docker of Debian, unpacked beside the machine's root, not installed on it.
//! And the schemas of the OCI runtime spec, of a newer Debian.
//!
//! ```text
//!  apt-get --simulate ─▶ packages that this machine lacks ─▶ apt-get download ─▶ dpkg-deb -x ─▶ tree
//!                                            the schemas ─▶ apt-helper ─────────────┘
//! ```
//!
//! The tree is a layer of the lab's root, above the machine's own. No maintainer script runs and no service is started;
//! what the scripts would have made and the engines need is made here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::{remove, run};
use super::{Error, apt};

/// What the tests call or an engine calls in turn; their dependencies come along.
const PACKAGES: [&str; 13] = [
    "podman",
    "conmon",
    "netavark",
    "aardvark-dns",
    "catatonit",
    "slirp4netns",
    "uidmap",
    "dbus-user-session",
    "docker.io",
    "docker-registry",
    "iptables",
    "curl",
    "systemd",
];
/// The first release with a schema for `features`, in the pool of a mirror: a file of the stable Debian 13 stays there.
const SCHEMAS: &str = "pool/main/g/golang-github-opencontainers-specs/\
    golang-github-opencontainers-specs-dev_1.2.0-2_all.deb";
const SCHEMAS_SHA256: &str = "6c3357147c17e618486884b0678f577ca61d0ffdd9068757adbf907e9961fc7d";
/// Names, in the tree, the packages it was made for: another list makes another tree.
const MADE_FOR: &str = "lab/engines";
/// What `update-alternatives` would have linked.
const ALTERNATIVES: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// Finds or makes the tree in the cache, whose lock the caller holds.
///
/// # Errors
/// Packages that cannot be fetched or unpacked.
pub fn tree(cache: &Path) -> Result<PathBuf, Error> {
    let tree = cache.join("engines");
    let wanted = format!("{} {SCHEMAS}", PACKAGES.join(" "));
    if fs::read_to_string(tree.join(MADE_FOR)).is_ok_and(|made_for| made_for == wanted) {
        return Ok(tree);
    }
    eprintln!("lab: fetching podman and docker of Debian (80 MB, once)");
    let staging = cache.join("engines.new");
    let debs = cache.join("engines.debs");
    for dir in [&tree, &staging] {
        remove(dir)?;
    }
    // The index may be absent (a fresh image) or name versions that the mirror has dropped.
    fetch(&debs).or_else(|_| {
        run(Command::new("apt-get").args(["-q", "update"]))?;
        fetch(&debs)
    })?;
    unpack(&debs, &staging)?;
    remove(&debs)?;
    let made_for = staging.join(MADE_FOR);
    fs::create_dir_all(staging.join("lab")).map_err(Error::file("create", &made_for))?;
    fs::write(&made_for, wanted).map_err(Error::file("write", &made_for))?;
    fs::rename(&staging, &tree).map_err(Error::file("rename", &staging))?;
    Ok(tree)
}

fn fetch(to: &Path) -> Result<(), Error> {
    remove(to)?;
    fs::create_dir_all(to).map_err(Error::file("create", to))?;
    let plan = run(Command::new("apt-get")
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(PACKAGES))?;
    fetch_schemas(to)?;
    let missing = missing(&plan);
    if missing.is_empty() {
        return Ok(());
    }
    // Root downloads as root: the sandbox user of apt cannot write to the cache and apt would warn.
    run(Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
        .args(missing)
        .current_dir(to))
    .map(drop)
}

fn fetch_schemas(to: &Path) -> Result<(), Error> {
    let mirror = apt::mirror()?;
    run(Command::new("/usr/lib/apt/apt-helper")
        .args(["-o", "APT::Sandbox::User=root", "download-file"])
        .arg(format!("{mirror}/{SCHEMAS}"))
        .arg(to.join("schemas.deb"))
        .arg(format!("SHA256:{SCHEMAS_SHA256}")))
    .map(drop)
}

/// The packages that a simulated installation adds. "Inst NAME [OLD] (NEW …)" with an old version is an upgrade of one
/// that is there, which will do as it is.
fn missing(plan: &str) -> Vec<&str> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_once(' '))
        .filter(|(_, rest)| !rest.starts_with('['))
        .map(|(name, _)| name)
        .collect()
}

fn unpack(debs: &Path, to: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(debs).map_err(Error::file("read", debs))? {
        let deb = entry.map_err(Error::file("read", debs))?.path();
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(to))?;
    }
    // A directory of this name would hide the machine's link to /usr.
    for name in ["bin", "sbin", "lib"] {
        let top = to.join(name);
        if top.exists() {
            run(Command::new("cp").arg("-a").arg(top.join(".")).arg(to.join("usr").join(name)))?;
            remove(&top)?;
        }
    }
    let sbin = to.join("usr/sbin");
    if sbin.join("xtables-nft-multi").exists() {
        for name in ALTERNATIVES {
            let link = sbin.join(name);
            symlink("xtables-nft-multi", &link).map_err(Error::file("link", &link))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "engines_tests.rs"]
mod tests;
