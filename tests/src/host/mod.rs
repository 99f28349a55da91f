//! A host to test on: the staged `bulkhead`, a state root and bundles of its own, and a look for what was left behind.
//!
//!   TestHost ── bundle() ─▶ Bundle ── run / create / spawn ─▶ `bulkhead` (a child process, never a library call)
//!
//! Runs where `/dev/kvm` runs stock guests: on this machine or, the same binary, in the lab. Every wait has a deadline;
//! every container of a `TestHost` is deleted when it is dropped, `assert_no_trace` looks for leftovers, and at its end the host
//! must be as it was found.

mod bundle;
mod container;
mod containerd;
mod cri;
mod docker;
mod engine;
mod found;
mod podman;
mod process;
mod systemd;
mod terminal;
mod tour;
mod trace;
mod wait;
mod wire;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

pub use bundle::Bundle;
pub use container::Container;
pub use containerd::{Containerd, RUNTIME, shim_state};
pub use cri::{
    Client as CriClient, Cri, HANDLER, IMAGE as CRI_IMAGE, Pod, RUNC, Refusal, api as cri_api,
    container as cri_container, image as cri_image,
};
pub use docker::Docker;
pub use engine::{Engine, Release};
pub use podman::{Podman, newer_podman};
pub use process::process;
pub use systemd::Systemd;
pub use terminal::Terminal;
pub use tour::{Guide, tour, tour_as};
pub use wait::{Finished, finish, until};
pub use wire::{Wire, in_network, ip};

/// For one command on a busy machine in software emulation.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// One test's own corner of the machine.
#[derive(Debug)]
pub struct TestHost {
    dir: tempfile::TempDir,
    name: String,
    bundles: AtomicU32,
    /// For `--config`.
    config: Option<PathBuf>,
    found: found::Found,
}

impl TestHost {
    /// From here on this thread, and what it starts, has mounts of its own.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&name).tempdir().expect("a temporary directory");
        Self { dir, name, bundles: AtomicU32::new(0), config: None, found: found::Found::now() }
    }

    /// One whose operator has written this configuration.
    pub fn configured(text: &str) -> Self {
        let mut host = Self::new();
        let path = host.dir().join("config.toml");
        std::fs::write(&path, text).expect("the configuration");
        host.config = Some(path);
        host
    }

    /// The state root (`--root`).
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A directory for files of the test itself.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A container id that no other test uses.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// `bulkhead --root … ARGS`, not yet started, stdin closed.
    pub fn bulkhead<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = Command::new(stage().join("bin/bulkhead"));
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.arg("--root").arg(self.root()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command of `bulkhead` to its end.
    pub fn output<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Finished {
        finish(&mut self.bulkhead(args), b"", DEADLINE)
    }

    /// A bundle whose rootfs has busybox and the probe, running `probe ARGS` by default.
    pub fn bundle(&self) -> Bundle {
        let number = self.bundles.fetch_add(1, Ordering::Relaxed);
        Bundle::new(self.dir.path().join(format!("bundle{number}")), rootfs())
    }

    /// `bulkhead run` in the foreground, to its end.
    pub fn run(&self, bundle: &Bundle) -> Finished {
        self.run_with_input(bundle, b"")
    }

    pub fn run_with_input(&self, bundle: &Bundle, input: &[u8]) -> Finished {
        let id = self.id("run");
        let mut command = self.bulkhead(["run", "--bundle"]);
        command.arg(bundle.write()).arg(&id);
        let finished = finish(&mut command, input, DEADLINE);
        self.assert_no_trace_of(&id);
        finished
    }

    /// `bulkhead create`, stdio to files that the container's `stdout()` reads.
    pub fn create(&self, name: &str, bundle: &Bundle) -> Container<'_> {
        Container::create(self, self.id(name), bundle)
    }

    /// The mounts of the host, as bulkhead and this thread see them: lines of mountinfo.
    pub fn mounts(&self) -> Vec<String> {
        found::mounts()
    }

    /// Panics when a mount came or went since `before`.
    pub fn assert_mounts(&self, before: &[String]) {
        let changes = found::difference(before, &found::mounts());
        assert!(changes.is_empty(), "{}", changes.join("\n"));
    }

    /// Panics when any process, cgroup, mount, socket or file on the machine still belongs to the container.
    pub fn assert_no_trace_of(&self, id: &str) {
        let left = trace::of(id, &self.root());
        assert!(left.is_empty(), "left behind by {id}:\n{}", left.join("\n"));
    }

    /// The same for the whole state root.
    pub fn assert_no_trace(&self) {
        let left = trace::of(&self.name, &self.root());
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let _: Option<Output> = self.bulkhead(["delete", "--force"]).arg(entry.file_name()).output().ok();
        }
        if std::thread::panicking() {
            return;
        }
        let mut changes = self.found.changes();
        changes.extend(trace::of(&self.name, &self.root()));
        assert!(changes.is_empty(), "the host is not as it was found:\n{}", changes.join("\n"));
    }
}

/// The install prefix under test: `make stage` makes it.
pub fn stage() -> PathBuf {
    std::env::var_os("BULKHEAD_STAGE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stage"), PathBuf::from)
}

/// The static probe that runs inside containers.
pub fn probe() -> PathBuf {
    stage().join("libexec/bulkhead/bulkhead-probe")
}

/// A rootfs with busybox and the probe, made once per test process.
fn rootfs() -> &'static Path {
    static ROOTFS: OnceLock<tempfile::TempDir> = OnceLock::new();
    ROOTFS.get_or_init(bundle::make_rootfs).path()
}
