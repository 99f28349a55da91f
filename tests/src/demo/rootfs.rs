//! A Debian userland with python3, made once and kept in the cache.
//!
//! The directory's name is a hash of the recipe, so another recipe makes another one, and a finished one is never
//! changed. It is built beside its final name and renamed.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Error, file};
use crate::lab::places;

/// What is in the userland beside Debian's minimal base.
const PACKAGES: &str = "python3";
/// Documentation and translations: a demonstration needs neither, and they are a third of the files.
const EXCLUDED: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Finds or makes the userland; returns its directory.
///
/// # Errors
/// No mirror, or mmdebstrap failed; what it printed is on stderr.
pub fn prepare() -> Result<PathBuf, Error> {
    let suite = codename()?;
    let mut hasher = DefaultHasher::new();
    (&suite, PACKAGES, EXCLUDED).hash(&mut hasher);
    let cache = places::bulkhead_cache().join("rootfs");
    let finished = cache.join(format!("debian-{suite}-{:016x}", hasher.finish()));
    if finished.exists() {
        return Ok(finished);
    }
    let mirror = mirror(&suite)?;
    eprintln!("demo: making a Debian {suite} userland with {PACKAGES} (once, about a minute)");
    let staging = cache.join(format!("{suite}.new"));
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(file("remove", &staging))?;
    }
    fs::create_dir_all(&cache).map_err(file("create", &cache))?;
    bootstrap(&suite, &mirror, &staging)?;
    fs::rename(&staging, &finished).map_err(file("rename", &staging))?;
    Ok(finished)
}

fn bootstrap(suite: &str, mirror: &str, to: &Path) -> Result<(), Error> {
    let program = "mmdebstrap".to_owned();
    let mut command = Command::new(&program);
    command.args(["--variant=minbase", "--mode=root", "--include", PACKAGES]);
    // The sandbox user of apt cannot write below a root-only cache, and apt would warn.
    command.arg("--aptopt=APT::Sandbox::User \"root\"");
    for path in EXCLUDED {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    // stdout is for the caller's answer.
    command.arg(suite).arg(to).arg(mirror).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(|source| Error::Spawn { program: program.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { program, status: status.to_string() }) }
}

/// This machine's own release.
fn codename() -> Result<String, Error> {
    let path = "/etc/os-release";
    let text = fs::read_to_string(path).map_err(file("read", path))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.unwrap_or("stable").trim_matches('"').to_owned())
}

/// The mirror this machine uses for its own release, whatever the format of its sources files.
fn mirror(suite: &str) -> Result<String, Error> {
    let program = "apt-get".to_owned();
    let output = Command::new(&program)
        .args(["indextargets", "Created-By: Packages", "--format", "$(RELEASE)|$(COMPONENT)|$(REPO_URI)"])
        .output()
        .map_err(|source| Error::Spawn { program, source })?;
    let targets = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = format!("{suite}|main|");
    let found = targets.lines().find_map(|line| line.strip_prefix(&wanted));
    found.map(str::to_owned).ok_or_else(|| Error::NoMirror { suite: suite.to_owned() })
}
