//! Streams from and to a block device: in a microVM that has it as a disk, and on the host that it belongs to.
//!
//! The host's side goes through the host's page cache, as the VMM does for its guest. The guest's own cache is left out, for it
//! would answer without the disk. Before each stream the host drops what it has cached of the device.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// MiB of one stream, and of the disk.
pub const MIB: u64 = 128;
/// linux/fs.h.
const BLKFLSBUF: libc::c_ulong = 0x1261;

/// A loop device over a file.
#[derive(Debug)]
pub struct LoopDevice(pub PathBuf);

impl LoopDevice {
    /// Over a new file of `MIB` MiB.
    ///
    /// # Errors
    /// When the file cannot be made, or losetup fails.
    pub fn over(file: &Path) -> io::Result<Self> {
        File::create(file)?.set_len(MIB << 20)?;
        // Where the kernel has loop devices built in, or loaded, there is no such module to load.
        let _ = Command::new("modprobe").arg("loop").status();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output()?;
        let name = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        if name.is_empty() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        Ok(Self(name.into()))
    }

    /// Writes out and drops what the host has cached of it.
    ///
    /// # Errors
    /// Those of open(2) and of the operation.
    pub fn drop_cache(&self) -> io::Result<()> {
        let device = File::open(&self.0)?;
        // SAFETY: the operation takes no argument that is read or written.
        if unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) } == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Seconds between the two words of a `probe disk`.
///
/// # Errors
/// When it does not say both.
pub fn measure(command: &mut Command) -> io::Result<f64> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
    let mut times = Vec::new();
    for (line, word) in BufReader::new(stdout).lines().zip(["begin", "end"]) {
        if line? != word {
            break;
        }
        times.push(Instant::now());
    }
    child.wait()?;
    match times.as_slice() {
        [begin, end] => Ok(end.duration_since(*begin).as_secs_f64()),
        _ => Err(io::Error::other("the stream did not come to its end")),
    }
}
