//! docker with a daemon and storage of its own, and Bulkhead as its runtime.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::Path,
    process::{Child, Command},
};

use super::{
    DEADLINE, Engine,
    containerd::RUNTIME,
    engine::{Release, archive},
    found::own_mounts,
    stage, until,
};
use crate::lab::newer::Suite;

/// How docker calls Bulkhead.
#[derive(Debug, Clone, Copy)]
enum Door {
    /// runc's shim runs `bulkhead`.
    Path,
    /// containerd runs Bulkhead's shim.
    Shim,
}

/// All containers and the daemon go when it is dropped. Containers have no network but that of others: a test that wants
/// docker's needs a network namespace of its own.
#[derive(Debug)]
pub struct Docker {
    release: Release,
    dir: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    /// docker 20.10, which runs `bulkhead` by its path.
    pub fn new() -> Self {
        Self::of(Release::Installed, Door::Path)
    }

    /// docker of a newer Debian, whose containerd runs Bulkhead's shim.
    pub fn by_shim(suite: Suite) -> Self {
        Self::of(Release::Of(suite), Door::Shim)
    }

    fn of(release: Release, door: Door) -> Self {
        own_mounts();
        let dir =
            tempfile::Builder::new().prefix("bulkhead-docker").tempdir().expect("a temporary directory");
        let log = dir.path().join("log");
        let output = || File::options().create(true).append(true).open(&log).expect("open the log");
        let mut daemon = release.program("/usr/sbin/dockerd");
        for (flag, file) in [("--data-root", "data"), ("--exec-root", "run"), ("--pidfile", "pid")] {
            daemon.arg(flag).arg(dir.path().join(file));
        }
        daemon.arg("--host").arg(address(dir.path()));
        daemon.args(["--bridge=none", "--iptables=false", "--default-runtime=bulkhead"]);
        let bin = stage().join("bin");
        match door {
            Door::Path => {
                daemon.arg("--add-runtime").arg(format!("bulkhead={}", bin.join("bulkhead").display()));
            }
            Door::Shim => {
                let config = dir.path().join("daemon.json");
                let runtimes = serde_json::json!({ "runtimes": { "bulkhead": { "runtimeType": RUNTIME } } });
                fs::write(&config, runtimes.to_string()).expect("write the configuration");
                daemon.arg("--config-file").arg(config);
                daemon.arg("--containerd-namespace").arg(namespace(dir.path()));
                daemon.env("PATH", format!("{}:{}", bin.display(), release.path()));
            }
        }
        let daemon = daemon.stdout(output()).stderr(output()).spawn().expect("spawn dockerd");
        let mut docker = Self { release, dir, daemon };
        until("dockerd answers", DEADLINE, || {
            if docker.daemon.try_wait().expect("wait for dockerd").is_some() {
                panic!("dockerd has ended: {}", docker.log());
            }
            docker.output(["version"]).status.success().then_some(())
        });
        let archive = archive(docker.dir());
        let import = [OsStr::new("import"), archive.as_os_str(), OsStr::new("probe")];
        docker.output(import).success();
        docker
    }

    /// What the daemon, and its containerd, have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// containerd's, of the containers that are run by shim.
    pub fn namespace(&self) -> String {
        namespace(self.dir())
    }
}

fn namespace(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("e2e-{}", name.trim_start_matches("bulkhead-docker").to_ascii_lowercase())
}

fn address(dir: &Path) -> String {
    format!("unix://{}", dir.join("socket").display())
}

impl Engine for Docker {
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.release.program("/usr/bin/docker");
        command.arg("--host").arg(address(self.dir())).args(args);
        command
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.output(["ps", "--all", "--quiet"]).text();
        let _ = self.command(["rm", "--force"].into_iter().chain(all.split_whitespace())).output();
        // It ends its containerd before itself.
        if let Ok(pid) = self.daemon.id().try_into() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        }
        let _ = self.daemon.wait();
    }
}
