//! docker with a daemon and storage of its own, and Bulkhead as its runtime.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::Path,
    process::{Child, Command},
};

use super::{
    DEADLINE, Engine,
    engine::{archive, program},
    found::own_mounts,
    stage, until,
};

/// All containers and the daemon go when it is dropped. Containers have no network but that of others: a test that wants
/// docker's needs a network namespace of its own.
#[derive(Debug)]
pub struct Docker {
    dir: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    pub fn new() -> Self {
        own_mounts();
        let dir =
            tempfile::Builder::new().prefix("bulkhead-docker").tempdir().expect("a temporary directory");
        let log = dir.path().join("log");
        let output = || File::options().create(true).append(true).open(&log).expect("open the log");
        let mut daemon = program("/usr/sbin/dockerd");
        for (flag, file) in [("--data-root", "data"), ("--exec-root", "run"), ("--pidfile", "pid")] {
            daemon.arg(flag).arg(dir.path().join(file));
        }
        daemon.arg("--host").arg(address(dir.path()));
        daemon.args(["--bridge=none", "--iptables=false", "--default-runtime=bulkhead", "--add-runtime"]);
        daemon.arg(format!("bulkhead={}", stage().join("bin/bulkhead").display()));
        let daemon = daemon.stdout(output()).stderr(output()).spawn().expect("spawn dockerd");
        let mut docker = Self { dir, daemon };
        until("dockerd answers", DEADLINE, || {
            if docker.daemon.try_wait().expect("wait for dockerd").is_some() {
                panic!("dockerd has ended: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            docker.output(["version"]).status.success().then_some(())
        });
        let archive = archive(docker.dir());
        let import = [OsStr::new("import"), archive.as_os_str(), OsStr::new("probe")];
        docker.output(import).success();
        docker
    }
}

fn address(dir: &Path) -> String {
    format!("unix://{}", dir.join("socket").display())
}

impl Engine for Docker {
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = program("/usr/bin/docker");
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
