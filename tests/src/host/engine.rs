//! What the tests ask of podman and docker alike.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Finished, finish, rootfs};
use crate::lab::newer::{self, Suite};

/// For one command: it starts a microVM at most, but in software emulation a Go program alone takes seconds.
pub(super) const ENGINE_DEADLINE: Duration = Duration::from_secs(280);
/// What the scheduler and the collector of a Go program do costs more in emulation than what they are for.
pub(super) const GO: [(&str, &str); 2] = [("GOMAXPROCS", "1"), ("GOGC", "off")];

/// A container engine with storage of its own, Bulkhead as its runtime, and one image, `probe`: busybox and the probe.
pub trait Engine {
    /// A directory for files of the test itself.
    fn dir(&self) -> &Path;

    /// The engine's program with these arguments, not yet started.
    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command;

    /// Runs a command of the engine to its end.
    fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        finish(&mut self.command(args), b"", ENGINE_DEADLINE)
    }
}

/// Where the programs of an engine come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The machine's own: podman 4.3, containerd 1.6 and docker 20.10 of Debian 12.
    Installed,
    /// Those beside it, of a newer Debian.
    Of(Suite),
}

impl Release {
    /// Where the engine finds the programs that it starts in turn, but for Bulkhead's.
    pub(super) fn path(self) -> String {
        match self {
            Self::Installed => "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            Self::Of(suite) => {
                let place = newer::place(suite);
                let place = place.display();
                format!("{place}/usr/sbin:{place}/usr/bin:{}", Self::Installed.path())
            }
        }
    }

    /// The program at this path, which finds no other of its kind than Debian's, and is told what `GO` says.
    pub(super) fn program(self, path: &str) -> Command {
        let mut command = match self {
            Self::Installed => Command::new(path),
            Self::Of(suite) => Command::new(newer::place(suite).join(path.trim_start_matches('/'))),
        };
        command.env("PATH", self.path()).envs(GO).stdin(std::process::Stdio::null());
        command
    }
}

/// The root of the image, for `import`.
pub(super) fn archive(dir: &Path) -> PathBuf {
    let archive = dir.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(rootfs()).arg("-cf").arg(&archive).arg(".");
    finish(&mut tar, b"", ENGINE_DEADLINE).success();
    archive
}
