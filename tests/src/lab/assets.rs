//! What a lab is made of and the build machine may not have: a Debian kernel with its modules, virtiofsd, and the
//! container engines.
//!
//! All are fetched once into the cache, under a lock, each built beside its final name and renamed, so a half-done
//! download is never taken for a whole one. QEMU and busybox are packages: `deploy/install-lab-packages.sh`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::machine::Variant;
use super::qemu::Qemu;
use super::{Error, engines, places};

/// Debian's kernel for virtual machines: has kvm-amd, virtiofs, overlay, tun and vhost as modules.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const VIRTIOFSD: &str = "1.14.0";
const INSTALL: &str = "deploy/install-lab-packages.sh";

/// Everything needed to start a lab.
#[derive(Debug, Clone)]
pub struct Assets {
    pub qemu: Qemu,
    pub busybox: PathBuf,
    pub virtiofsd: PathBuf,
    pub kernel: Kernel,
    /// podman, docker and what they need, as a layer of the lab's root.
    pub engines: PathBuf,
}

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub image: PathBuf,
    /// The `lib/modules` directory, with `modules.dep` made.
    pub modules: PathBuf,
    pub release: String,
}

/// Finds or fetches all assets. The first call on a machine takes about two minutes and says what it does on stderr.
///
/// # Errors
/// A package that is not installed, or a download or build that failed.
pub fn prepare(variant: &Variant) -> Result<Assets, Error> {
    let cache = places::cache();
    fs::create_dir_all(&cache).map_err(Error::file("create", &cache))?;
    let lock = cache.join("lock");
    let file = File::create(&lock).map_err(Error::file("create", &lock))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::File {
        step: "lock",
        path: lock,
        source: errno.into(),
    })?;
    Ok(Assets {
        qemu: match &variant.qemu {
            Some(path) => Qemu::at(path)?,
            None => Qemu::Installed(program("qemu-system-x86_64")?),
        },
        busybox: program("busybox")?,
        virtiofsd: virtiofsd(&cache)?,
        kernel: match &variant.lab_kernel {
            Some(unpacked) => unpacked_kernel(unpacked)?,
            None => kernel(&cache)?,
        },
        engines: engines::tree(&cache)?,
    })
}

fn program(name: &str) -> Result<PathBuf, Error> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| Error::Missing { what: name.to_owned(), hint: INSTALL })
}

fn virtiofsd(cache: &Path) -> Result<PathBuf, Error> {
    let root = cache.join(format!("virtiofsd-{VIRTIOFSD}"));
    let binary = root.join("bin/virtiofsd");
    if binary.exists() {
        return Ok(binary);
    }
    eprintln!("lab: building virtiofsd {VIRTIOFSD} (about a minute, once)");
    // cargo installs by rename and the binary comes last, so no staging directory is needed. Its own target
    // directory: the caller's may be locked by the build that runs us.
    let target = root.join("build");
    run(Command::new("cargo")
        .args(["install", "--quiet", "--locked", "virtiofsd", "--version", VIRTIOFSD, "--root"])
        .arg(&root)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .current_dir("/"))?;
    fs::remove_dir_all(&target).map_err(Error::file("remove", &target))?;
    Ok(binary)
}

fn kernel(cache: &Path) -> Result<Kernel, Error> {
    let unpacked = cache.join("kernel");
    if !unpacked.exists() {
        eprintln!("lab: fetching Debian's kernel {KERNEL_PACKAGE} (once)");
        fetch_kernel(cache, &unpacked)?;
    }
    unpacked_kernel(&unpacked)
}

fn unpacked_kernel(unpacked: &Path) -> Result<Kernel, Error> {
    let modules = unpacked.join("lib/modules");
    let release = only_entry(&modules)?;
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    Ok(Kernel { image, modules, release })
}

fn fetch_kernel(cache: &Path, unpacked: &Path) -> Result<(), Error> {
    let staging = cache.join("kernel.new");
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(Error::file("remove", &staging))?;
    }
    fs::create_dir_all(&staging).map_err(Error::file("create", &staging))?;

    // The meta package's one interesting dependency is the current kernel: linux-image-6.1.0-N-cloud-amd64.
    let depends = run(Command::new("apt-cache").args(["depends", "--important", KERNEL_PACKAGE]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| Error::Missing { what: KERNEL_PACKAGE.to_owned(), hint: "apt-get update" })?;
    // Root downloads as root: the sandbox user of apt cannot write to the cache and apt would warn.
    run(Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(&staging))?;
    let deb = staging.join(only_entry(&staging)?);
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&staging))?;
    fs::remove_file(&deb).map_err(Error::file("remove", &deb))?;
    // dpkg-deb runs no maintainer script, and modprobe needs the dependency table.
    let release = only_entry(&staging.join("lib/modules"))?;
    run(Command::new("depmod").arg("-b").arg(&staging).arg(release))?;
    fs::rename(&staging, unpacked).map_err(Error::file("rename", &staging))
}

fn only_entry(dir: &Path) -> Result<String, Error> {
    let mut entries = fs::read_dir(dir).map_err(Error::file("read", dir))?;
    let first = entries.next().and_then(Result::ok);
    first
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .ok_or_else(|| Error::Missing { what: format!("the one entry of {}", dir.display()), hint: INSTALL })
}

/// Runs a tool to its end and returns what it printed.
pub(super) fn run(command: &mut Command) -> Result<String, Error> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().map_err(|source| Error::Spawn { program: shown.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Tool { command: shown, status: output.status.to_string(), output: said })
}
