//! Bytes per second out of a container's stdout.

use std::{
    io::{self, Read},
    process::{Command, Stdio},
    time::Instant,
};

/// Runs a command that writes a known amount, reads it all, and returns MiB per second.
pub fn measure(command: &mut Command, bytes: u64) -> io::Result<f64> {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match stdout.read(&mut buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    child.wait()?;
    if total != bytes {
        return Err(io::Error::other(format!("{total} of {bytes} bytes came through")));
    }
    #[allow(clippy::cast_precision_loss)]
    let mib = bytes as f64 / f64::from(1 << 20);
    Ok(mib / started.elapsed().as_secs_f64())
}
