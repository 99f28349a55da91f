//! Stdio of the process, and its terminal.
//!
//! A terminal is a pty of the container's own devpts: names and permissions are then right inside. Its master
//! crosses the socket to the agent; the slave becomes the controlling terminal, stdin, stdout and stderr, and for
//! a container's first process also /dev/console. The slave comes from the master (TIOCGPTPEER), not by a name
//! that the image could have prepared.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{FileType, OFlags, Uid, fchown, fstat, major, minor},
    io::Errno,
    process::ioctl_tiocsctty,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

use super::{
    detached::{attach, clone_tree},
    error::{ContainerError, During},
    path::Root,
};

/// The two ends of a new terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

impl Terminal {
    /// Line feeds come out as they went in, as with runc in the foreground.
    pub(super) fn leave_line_feeds(&self) -> Result<(), ContainerError> {
        const STEP: &str = "set up";
        let mut settings = tcgetattr(&self.slave).during(STEP, "terminal")?;
        settings.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&self.slave, OptionalActions::Now, &settings).during(STEP, "terminal")
    }
}

/// Makes a pty in the container's devpts and the controlling terminal of this session.
pub(super) fn open(root: &Root, size: Option<(u16, u16)>) -> Result<Terminal, ContainerError> {
    const STEP: &str = "open terminal";
    const PTMX: &str = "/dev/pts/ptmx";
    let master = root.open(PTMX, OFlags::RDWR | OFlags::NOCTTY).during(STEP, PTMX)?;
    let found = fstat(&master).during(STEP, PTMX)?;
    // Documentation/admin-guide/devices.txt: 5 char, 2 = /dev/ptmx.
    let device = (major(found.st_rdev), minor(found.st_rdev));
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || device != (5, 2) {
        return Err("it is not the device that makes terminals").during(STEP, PTMX);
    }
    unlockpt(&master).during(STEP, PTMX)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .during(STEP, "its slave")?;
    if let Some((columns, rows)) = size {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).during("set size of", "terminal")?;
    }
    ioctl_tiocsctty(&slave).during("take controlling", "terminal")?;
    Ok(Terminal { master, slave })
}

/// Binds the slave on /dev/console: on that itself, for a link there would have a file of the image's choice covered.
pub(super) fn bind_console(root: &Root, slave: &OwnedFd) -> Result<(), ContainerError> {
    const STEP: &str = "bind terminal on";
    const CONSOLE: &str = "/dev/console";
    let place = root.make_own_file(CONSOLE).during(STEP, CONSOLE)?;
    let found = FileType::from_raw_mode(fstat(&place).during(STEP, CONSOLE)?.st_mode);
    if !matches!(found, FileType::RegularFile | FileType::CharacterDevice) {
        return Err("something else is there").during(STEP, CONSOLE);
    }
    let mount = clone_tree(slave, false).during(STEP, CONSOLE)?;
    attach(mount, place).during(STEP, CONSOLE)
}

/// Gives the three to the user, so that /dev/stdout can be opened again by name. Pipes are the guest's: they are given away
/// before a user namespace is entered. A terminal is the container's.
pub(super) fn own_streams(stdio: &[OwnedFd; 3], uid: u32) -> Result<(), ContainerError> {
    let named = stdio.iter().zip(["stdin", "stdout", "stderr"]);
    named.into_iter().try_for_each(|(fd, name)| own(fd, uid).during("set owner of", name))
}

/// Puts the three at 0, 1 and 2.
pub(super) fn place_streams(stdio: &[OwnedFd; 3]) -> Result<(), ContainerError> {
    const STEP: &str = "set up";
    dup2_stdin(&stdio[0]).during(STEP, "stdin")?;
    dup2_stdout(&stdio[1]).during(STEP, "stdout")?;
    dup2_stderr(&stdio[2]).during(STEP, "stderr")
}

fn own(fd: &OwnedFd, uid: u32) -> Result<(), Errno> {
    let found = fstat(fd)?;
    let device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    // The null device belongs to everybody (1 char, 3).
    if found.st_uid == uid || (device && (major(found.st_rdev), minor(found.st_rdev)) == (1, 3)) {
        return Ok(());
    }
    match fchown(fd, Some(Uid::from_raw(uid)), None) {
        // Sockets, read-only mounts and ids that a user namespace does not know: then the owner stays.
        Err(Errno::PERM | Errno::INVAL | Errno::ROFS | Errno::NOSYS) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Copies of the slave for the three.
pub(super) fn three_of(slave: &OwnedFd) -> Result<[OwnedFd; 3], ContainerError> {
    let copy = || rustix::io::fcntl_dupfd_cloexec(slave.as_fd(), 3).during("copy", "terminal");
    Ok([copy()?, copy()?, copy()?])
}

#[cfg(test)]
mod tests;
