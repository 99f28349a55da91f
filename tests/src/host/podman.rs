//! podman with storage of its own, and Bulkhead as its runtime.

use std::{
    ffi::OsStr,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    Engine,
    engine::{Release, archive},
    found::own_mounts,
    stage,
};
use crate::lab::newer::{self, Suite};

const PODMAN: &str = "/usr/bin/podman";

/// Commands that put podman of a newer Debian, and what it starts, in the place of the machine's own, for a tour. They are for a mount
/// namespace of one's own.
#[must_use]
pub fn newer_podman(suite: Suite) -> String {
    // The installation was below what is covered.
    format!("{}\nmount --bind {} /usr/local", newer::over_usr(suite), stage().display())
}

/// All containers go when it is dropped.
#[derive(Debug)]
pub struct Podman {
    dir: tempfile::TempDir,
    /// All have the same bridge on the host, and its addresses: one after another.
    _turn: MutexGuard<'static, ()>,
}

impl Podman {
    pub fn new() -> Self {
        own_mounts();
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed in its turn has had it.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir =
            tempfile::Builder::new().prefix("bulkhead-podman").tempdir().expect("a temporary directory");
        let podman = Self { dir, _turn: turn };
        let archive = archive(podman.dir());
        let import = [OsStr::new("import"), OsStr::new("--quiet"), archive.as_os_str(), OsStr::new("probe")];
        podman.output(import).success();
        podman
    }

    /// False on a machine without it; a lab has it.
    pub fn installed() -> bool {
        Path::new(PODMAN).exists()
    }

    /// As `command`, with another runtime.
    pub fn command_with<S: AsRef<OsStr>>(
        &self,
        runtime: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Release::Installed.program(PODMAN);
        for (flag, dir) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.dir().join(dir));
        }
        command.arg("--network-config-dir").arg(self.dir().join("networks"));
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime"]);
        command.arg(runtime).args(args);
        command
    }
}

impl Engine for Podman {
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.command_with(&stage().join("bin/bulkhead"), args)
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
