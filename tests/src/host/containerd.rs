//! containerd with storage of its own, which starts Bulkhead by its shim.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use super::{
    DEADLINE, Finished,
    engine::{ENGINE_DEADLINE, Release},
    finish,
    found::own_mounts,
    rootfs, stage, until,
};

/// How callers name the shim.
pub const RUNTIME: &str = "io.containerd.bulkhead.v2";

/// The daemon goes when it is dropped. Its containers are the test's to remove.
#[derive(Debug)]
pub struct Containerd {
    release: Release,
    dir: tempfile::TempDir,
    daemon: Child,
    namespace: String,
}

impl Containerd {
    pub fn new() -> Self {
        Self::of(Release::Installed)
    }

    pub fn of(release: Release) -> Self {
        Self::configured(release, None, |_| "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n".to_owned())
    }

    /// One that is used in a namespace of containerd's, by default a new one. `rest` of its configuration may name files in the
    /// test's directory, and begins outside of all tables.
    pub(super) fn configured(
        release: Release,
        namespace: Option<&str>,
        rest: impl FnOnce(&Path) -> String,
    ) -> Self {
        own_mounts();
        let dir = tempfile::Builder::new().prefix("bulkhead-cd").tempdir().expect("a temporary directory");
        configure(dir.path(), &rest(dir.path()));
        let daemon = start(release, dir.path());
        let namespace = namespace.map_or_else(|| own_namespace(dir.path()), str::to_owned);
        let mut containerd = Self { release, dir, daemon, namespace };
        containerd.until_it_answers();
        containerd
    }

    fn until_it_answers(&mut self) {
        until("containerd answers", DEADLINE, || {
            if self.daemon.try_wait().expect("wait for containerd").is_some() {
                panic!("containerd has ended: {}", self.log());
            }
            self.output(["version"]).status.success().then_some(())
        });
    }

    /// A directory for files of the test itself.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The namespace of containerd that the containers are in.
    pub fn namespace(&self) -> String {
        self.namespace.clone()
    }

    /// Where it answers.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// `ctr ARGS`, not yet started.
    pub fn ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.release.program("/usr/bin/ctr");
        command.arg("--address").arg(self.dir.path().join("socket"));
        command.arg("--namespace").arg(self.namespace()).args(args);
        command
    }

    /// Runs `ctr ARGS` to its end.
    pub fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        finish(&mut self.ctr(args), b"", ENGINE_DEADLINE)
    }

    /// The arguments of `ctr run` for a container of busybox and the probe.
    pub fn run<'a>(&self, flags: &[&'a str], id: &'a str, command: &[&'a str]) -> Vec<String> {
        let rootfs = rootfs().to_string_lossy().into_owned();
        let fixed = ["--runtime", RUNTIME, "--env", "PATH=/bin", "--rootfs", &rootfs, id];
        [&["run"], flags, &fixed, command].concat().into_iter().map(str::to_owned).collect()
    }

    /// Kills the daemon, and starts it again on what it has left.
    pub fn restart(&mut self) {
        self.restart_after(|| ());
    }

    /// The same, and `meanwhile` before it is started.
    pub(super) fn restart_after(&mut self, meanwhile: impl FnOnce()) {
        self.daemon.kill().expect("kill containerd");
        self.daemon.wait().expect("wait for containerd");
        meanwhile();
        self.daemon = start(self.release, self.dir.path());
        self.until_it_answers();
    }

    /// Where the shim has the state of this test's containers.
    pub fn state(&self) -> PathBuf {
        shim_state(&self.namespace())
    }
}

/// Where the shim has the state of the containers of a namespace.
pub fn shim_state(namespace: &str) -> PathBuf {
    Path::new("/run/containerd/bulkhead/state").join(namespace)
}

/// For the test alone, since the shim keeps state by it.
fn own_namespace(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("e2e-{}", name.trim_start_matches("bulkhead-cd").to_ascii_lowercase())
}

fn configure(dir: &Path, rest: &str) {
    let config = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\n{rest}[grpc]\naddress = {socket:?}\n",
        root = dir.join("root"),
        state = dir.join("state"),
        socket = dir.join("socket"),
    );
    fs::write(dir.join("config.toml"), config).expect("write the configuration");
}

fn start(release: Release, dir: &Path) -> Child {
    let log = || File::options().create(true).append(true).open(dir.join("log")).expect("open the log");
    let mut daemon = release.program("/usr/bin/containerd");
    let path = format!("{}:{}", stage().join("bin").display(), release.path());
    daemon.env("PATH", path).arg("--config").arg(dir.join("config.toml")).stdout(log()).stderr(log());
    daemon.spawn().expect("spawn containerd")
}

impl Default for Containerd {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
