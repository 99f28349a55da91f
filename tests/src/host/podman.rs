//! podman with storage of its own, and Bulkhead as its runtime.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Finished, finish, rootfs, stage};

/// For one command of podman: it starts a microVM at most, but in software emulation a Go program alone takes seconds.
const PODMAN_DEADLINE: Duration = Duration::from_secs(280);
/// What the scheduler and the collector of a Go program do costs more in emulation than what they are for.
const GO: [(&str, &str); 2] = [("GOMAXPROCS", "1"), ("GOGC", "off")];

/// Storage with one image, `probe`: busybox and the probe. All containers go when it is dropped.
#[derive(Debug)]
pub struct Podman {
    dir: tempfile::TempDir,
    /// All have the same bridge on the host, and its addresses: one after another.
    _turn: MutexGuard<'static, ()>,
}

impl Podman {
    pub fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed in its turn has had it.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir =
            tempfile::Builder::new().prefix("bulkhead-podman").tempdir().expect("a temporary directory");
        let podman = Self { dir, _turn: turn };
        let archive = podman.dir().join("image.tar");
        let root = rootfs();
        let tar = finish(
            Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg("."),
            b"",
            PODMAN_DEADLINE,
        );
        tar.success();
        let import = [OsStr::new("import"), OsStr::new("--quiet"), archive.as_os_str(), OsStr::new("probe")];
        podman.output(import).success();
        podman
    }

    /// A directory for files of the test itself.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `podman ARGS`, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("/usr/bin/podman");
        for (flag, dir) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.dir().join(dir));
        }
        command.arg("--network-config-dir").arg(self.dir().join("networks"));
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime"]);
        command.arg(stage().join("bin/bulkhead")).args(args);
        // The machine may have other programs of these names.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(GO).stdin(Stdio::null());
        command
    }

    /// Runs a command of podman to its end.
    pub fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        finish(&mut self.command(args), b"", PODMAN_DEADLINE)
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(["rm", "--all", "--force", "--time", "0"]).output();
        // podman leaves it mounted on itself.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir().join("storage/overlay")).output();
    }
}
