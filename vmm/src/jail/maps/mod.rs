//! The identity maps of the user namespace, written by a child that stays outside of it.
//!
//!   child: waits ◀─pipe─ parent: unshare, then `finish` ─▶ child: /proc/PARENT/{uid,gid}_map ─exit status─▶ parent
//!
//! Only a process with CAP_SETUID in the namespace outside may map more than one id. The map names every id that
//! exists outside, so ownership on the share means the same on both sides.

use std::{fmt::Write as _, fs, io, os::fd::OwnedFd};

use rustix::{
    io::{read, write},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitOptions, waitpid},
};

use super::{JailError, last, step};

/// The waiting child. Dropping it without `finish` ends it: its pipe closes.
pub(super) struct Writer {
    pid: Pid,
    go: OwnedFd,
}

impl Writer {
    pub(super) fn start() -> Result<Self, JailError> {
        let parent = rustix::process::getpid();
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).map_err(step("make a pipe for the map writer"))?;
        // SAFETY: the process has one thread, so the child finds no lock held by a thread it does not have.
        match unsafe { libc::fork() } {
            -1 => Err(last("fork the map writer")),
            0 => {
                drop(go);
                let status = match write_maps(parent, &wait) {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
                };
                // SAFETY: ends the child without running what the parent registered to run at exit.
                unsafe { libc::_exit(status) }
            }
            child => {
                let pid = Pid::from_raw(child).ok_or_else(|| last("fork the map writer"))?;
                Ok(Self { pid, go })
            }
        }
    }

    /// The namespace is made: lets the child write, and waits for it.
    pub(super) fn finish(self) -> Result<(), JailError> {
        write(&self.go, b"g").map_err(step("start the map writer"))?;
        let ended = waitpid(Some(self.pid), WaitOptions::empty()).map_err(step("wait for the map writer"))?;
        // The status is an errno, which fits: they end at 133.
        match ended.and_then(|(_, status)| status.exit_status()) {
            Some(0) => Ok(()),
            Some(errno) => Err(JailError::Step {
                step: "write the user and group maps",
                source: io::Error::from_raw_os_error(errno),
            }),
            None => Err(JailError::Maps { status: -1 }),
        }
    }
}

fn write_maps(parent: Pid, wait: &OwnedFd) -> io::Result<()> {
    if read(wait, &mut [0; 1])? == 0 {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let parent = parent.as_raw_nonzero();
    for map in ["uid_map", "gid_map"] {
        let ours = fs::read_to_string(format!("/proc/self/{map}"))?;
        fs::write(format!("/proc/{parent}/{map}"), identity(&ours))?;
    }
    Ok(())
}

/// Maps every id that exists in the map `ours` on itself.
pub(super) fn identity(ours: &str) -> String {
    let mut map = String::new();
    for line in ours.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            // Writing to a String does not fail.
            let _ = writeln!(map, "{first} {first} {count}");
        }
    }
    map
}

#[cfg(test)]
mod tests;
