//! What a lab is made of and the build machine may not have: QEMU, a Debian kernel with its modules, virtiofsd, and the
//! container engines, older and newer ones.
//!
//! All are fetched once into the cache, under a lock, side by side, each built beside its final name and renamed, so a
//! half-done download is never taken for a whole one. busybox is a package: `deploy/install-packages.sh lab`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::qemu::{self, Qemu};
use super::tools::{program, remove, run};
use super::variant::Variant;
use super::{Error, engines, newer, places};

/// Debian's kernel for virtual machines: has kvm-amd, virtiofs, overlay, tun and vhost as modules.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const VIRTIOFSD: &str = "1.14.0";
const INSTALL: &str = "deploy/install-packages.sh lab";
/// How often something slow says that it is still at work.
const SLOW: Duration = Duration::from_secs(15);

/// Everything needed to start a lab.
#[derive(Debug, Clone)]
pub struct Assets {
    pub qemu: Qemu,
    pub busybox: PathBuf,
    pub virtiofsd: PathBuf,
    pub kernel: Kernel,
    /// podman, docker and what they need, as a layer of the lab's root; an empty directory in a lab without them.
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
pub fn prepare(variant: &Variant, with_engines: bool) -> Result<Assets, Error> {
    let cache = places::cache();
    fs::create_dir_all(&cache).map_err(Error::file("create", &cache))?;
    let lock = cache.join("lock");
    let file = File::create(&lock).map_err(Error::file("create", &lock))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::File {
        step: "lock",
        path: lock,
        source: errno.into(),
    })?;
    let busybox = program("busybox", INSTALL)?;
    let (qemu, virtiofsd, newer, rest) = thread::scope(|scope| {
        let qemu = scope.spawn(|| match &variant.qemu {
            Some(path) => Qemu::at(path),
            None => slowly("fetching QEMU", || qemu::prepare(&cache)),
        });
        let virtiofsd = scope.spawn(|| slowly("building virtiofsd", || virtiofsd(&cache)));
        let newer = scope.spawn(|| match with_engines {
            true => slowly("fetching newer engines", || newer::prepare(&cache)),
            false => Ok(()),
        });
        // These two ask the machine's own apt, one after the other.
        let kernel = match &variant.lab_kernel {
            Some(unpacked) => unpacked_kernel(unpacked),
            None => slowly("fetching the kernel", || kernel(&cache)),
        };
        let engines = match with_engines {
            true => slowly("fetching podman and docker", || engines::tree(&cache)),
            false => no_engines(&cache),
        };
        (qemu.join(), virtiofsd.join(), newer.join(), (kernel, engines))
    });
    let gone = |_| Error::Refused { reason: "a thread that prepares the lab panicked".to_owned() };
    let (qemu, virtiofsd) = (qemu.map_err(gone)??, virtiofsd.map_err(gone)??);
    newer.map_err(gone)??;
    Ok(Assets { qemu, busybox, virtiofsd, kernel: rest.0?, engines: rest.1? })
}

/// Does `work`, and says every while that it is still at it.
fn slowly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, wait) = mpsc::channel::<()>();
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
                eprintln!("lab: still {what} ({} s)", started.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn no_engines(cache: &Path) -> Result<PathBuf, Error> {
    let empty = cache.join("no-engines");
    fs::create_dir_all(&empty).map_err(Error::file("create", &empty))?;
    Ok(empty)
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
    remove(&staging)?;
    fs::create_dir_all(&staging).map_err(Error::file("create", &staging))?;

    // The index may be absent (a fresh image) or name a version that the mirror has dropped.
    download_kernel(&staging).or_else(|_| {
        run(Command::new("apt-get").args(["-q", "update"]))?;
        download_kernel(&staging)
    })?;
    let deb = staging.join(only_entry(&staging)?);
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&staging))?;
    fs::remove_file(&deb).map_err(Error::file("remove", &deb))?;
    // dpkg-deb runs no maintainer script, and modprobe needs the dependency table.
    let release = only_entry(&staging.join("lib/modules"))?;
    run(Command::new("depmod").arg("-b").arg(&staging).arg(release))?;
    fs::rename(&staging, unpacked).map_err(Error::file("rename", &staging))
}

fn download_kernel(to: &Path) -> Result<(), Error> {
    // The meta package's one interesting dependency is the current kernel: linux-image-6.1.0-N-cloud-amd64.
    let depends = run(Command::new("apt-cache").args(["depends", "--important", KERNEL_PACKAGE]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| Error::Missing { what: KERNEL_PACKAGE.to_owned(), hint: "apt-get update" })?;
    // Root downloads as root: the sandbox user of apt cannot write to the cache and apt would warn.
    let options = ["-q", "-o", "APT::Sandbox::User=root", "download", package];
    run(Command::new("apt-get").args(options).current_dir(to)).map(drop)
}

fn only_entry(dir: &Path) -> Result<String, Error> {
    let mut entries = fs::read_dir(dir).map_err(Error::file("read", dir))?;
    let first = entries.next().and_then(Result::ok);
    first
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .ok_or_else(|| Error::Missing { what: format!("the one entry of {}", dir.display()), hint: INSTALL })
}
