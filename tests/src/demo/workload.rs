//! One workload: a bundle over the shared userland, run by `bulkhead run`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::{Error, file};
use crate::host::stage;

/// Bytes that the pipeline carries in and out again.
const PIPELINE: u64 = 64 << 20;

/// A bundle whose rootfs is the userland with a writable layer in memory; unmounted when dropped.
#[derive(Debug)]
pub struct Workload {
    // Fields drop in this order: the mount must go before its directory.
    rootfs: Overlay,
    dir: tempfile::TempDir,
    id: String,
}

/// What a run took.
#[derive(Debug)]
pub struct Ran {
    pub took: Duration,
    /// Phase and milliseconds since the command was entered.
    pub timeline: Vec<(String, String)>,
}

#[derive(Debug)]
struct Overlay(PathBuf);

impl Drop for Overlay {
    fn drop(&mut self) {
        // The directory below is removed next; a mount that cannot go shows there.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl Workload {
    /// Makes the bundle of `argv` over `userland`.
    ///
    /// # Errors
    /// The overlay cannot be mounted, or `bulkhead spec` failed.
    pub fn new(name: &str, userland: &Path, argv: &[&str]) -> Result<Self, Error> {
        // On a tmpfs, because a writable layer must not lie on another overlay.
        let dir = tempfile::Builder::new().prefix("bulkhead-demo-").tempdir_in("/run");
        let dir = dir.map_err(file("create a directory in", "/run"))?;
        let rootfs = overlay(dir.path(), userland)?;
        let mut spec = bulkhead();
        spec.arg("spec").arg("--bundle").arg(dir.path());
        succeed("bulkhead spec", &mut spec)?;

        let path = dir.path().join("config.json");
        let text = fs::read_to_string(&path).map_err(file("read", &path))?;
        let mut config: Value =
            serde_json::from_str(&text).map_err(|source| Error::Parse { path: path.clone(), source })?;
        config["process"]["args"] = json!(argv);
        config["process"]["terminal"] = json!(false);
        config["root"] = json!({ "path": "rootfs", "readonly": false });
        fs::write(&path, config.to_string()).map_err(file("write", &path))?;
        let id = format!("demo-{name}-{}", std::process::id());
        Ok(Self { rootfs, dir, id })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// `bulkhead run` failed, or the workload did.
    pub fn run(&self, stdin: Stdio, stdout: Stdio) -> Result<Ran, Error> {
        debug_assert!(self.rootfs.0.starts_with(self.dir.path()), "the bundle holds its rootfs");
        let timeline = self.dir.path().join("timeline");
        let mut run = bulkhead();
        run.arg("run").arg("--timeline").arg(&timeline).arg("--bundle").arg(self.dir.path()).arg(&self.id);
        let started = Instant::now();
        succeed("bulkhead run", run.stdin(stdin).stdout(stdout))?;
        let took = started.elapsed();
        let text = fs::read_to_string(&timeline).map_err(file("read", &timeline))?;
        let timeline = text.lines().filter_map(|line| line.split_once(' '));
        let timeline = timeline.map(|(phase, at)| (phase.to_owned(), at.trim().to_owned())).collect();
        Ok(Ran { took, timeline })
    }
}

/// Streams random bytes through the stdin and stdout of a container and compares what comes back.
///
/// # Errors
/// The run failed, or a byte differs.
pub fn pipeline(userland: &Path) -> Result<(Ran, String), Error> {
    let workload = Workload::new("pipeline", userland, &["cat"])?;
    let (sent, received) = (workload.dir.path().join("sent"), workload.dir.path().join("received"));
    let random = File::open("/dev/urandom").map_err(file("open", "/dev/urandom"))?;
    let mut to = File::create(&sent).map_err(file("create", &sent))?;
    io::copy(&mut random.take(PIPELINE), &mut to).map_err(file("write", &sent))?;
    to.flush().map_err(file("write", &sent))?;
    let stdin = File::open(&sent).map_err(file("open", &sent))?;
    let stdout = File::create(&received).map_err(file("create", &received))?;
    let ran = workload.run(stdin.into(), stdout.into())?;
    let (sent, received) = (sha256(&sent)?, sha256(&received)?);
    if sent == received { Ok((ran, sent)) } else { Err(Error::Differs { what: "the pipeline" }) }
}

fn overlay(dir: &Path, userland: &Path) -> Result<Overlay, Error> {
    let sub = |name: &str| {
        let path = dir.join(name);
        fs::create_dir(&path).map(|()| path.clone()).map_err(file("create", &path))
    };
    let (upper, work, rootfs) = (sub("upper")?, sub("work")?, sub("rootfs")?);
    let (lower, upper, work) = (userland.display(), upper.display(), work.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    mount(Some("overlay"), &rootfs, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|errno| Error::File { step: "mount", path: rootfs.clone(), source: errno.into() })?;
    Ok(Overlay(rootfs))
}

fn bulkhead() -> Command {
    Command::new(stage().join("bin/bulkhead"))
}

fn succeed(program: &str, command: &mut Command) -> Result<(), Error> {
    let program = program.to_owned();
    let status = command.status().map_err(|source| Error::Spawn { program: program.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { program, status: status.to_string() }) }
}

fn sha256(path: &Path) -> Result<String, Error> {
    let program = "sha256sum".to_owned();
    let output = Command::new(&program).arg(path).output();
    let output = output.map_err(|source| Error::Spawn { program, source })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
