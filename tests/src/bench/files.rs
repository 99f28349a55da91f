//! What programs do with the files of a rootfs: one program, under runc and in a microVM, on the same rootfs in memory.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::samples::Samples;

/// Prints a line for each of `ROWS`: its name and its seconds.
const PROGRAM: &str = include_str!("files.py");
/// Where it is in the rootfs.
pub const COMMAND: [&str; 2] = ["/usr/bin/python3", "/files.py"];

/// What is timed, what it is called in the report, and how much longer than with runc it may take.
pub const ROWS: [(&str, &str, Option<f64>); 9] = [
    ("walk-first", "walk and stat of Python's library, first time", Some(6.0)),
    ("walk-again", "walk and stat of Python's library, second time", Some(1.5)),
    ("small", "300 files of 4 KiB made and removed", Some(8.0)),
    ("write", "write of a file of 64 MiB", Some(1.5)),
    ("read-first", "read of 64 MiB just written", None),
    ("read-again", "read of 64 MiB, second time", Some(1.2)),
    ("sync", "100 times 4 KiB and fsync", Some(10.0)),
    ("start-first", "start of a Python program, first time", None),
    ("start-again", "start of a Python program, second time", Some(1.5)),
];

/// Seconds by row, a round each.
pub type Times = BTreeMap<String, Samples>;

/// A rootfs in memory with the program in it, unmounted at the end.
#[derive(Debug)]
pub struct Rootfs(pub PathBuf);

impl Rootfs {
    /// A copy of a userland that has Python.
    ///
    /// # Errors
    /// Without room or privileges, or without the userland.
    pub fn of(userland: &Path, at: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&at)?;
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1g", "files"]).arg(&at))?;
        let rootfs = Self(at);
        succeed(Command::new("cp").arg("-a").arg(userland.join(".")).arg(&rootfs.0))?;
        fs::write(rootfs.0.join("files.py"), PROGRAM)?;
        Ok(rootfs)
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?}: {status}"))) }
}

/// Runs the program by `command`, and adds its times.
///
/// # Errors
/// When it does not print what it should.
pub fn measure(command: &mut Command, times: &mut Times) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let measured: BTreeMap<_, f64> =
        lines.filter_map(|(name, seconds)| Some((name, seconds.parse().ok()?))).collect();
    for (name, ..) in ROWS {
        let seconds = measured.get(name).ok_or_else(|| io::Error::other(format!("no {name} in {text:?}")))?;
        times.entry(name.to_owned()).or_default().0.push(*seconds);
    }
    Ok(())
}
