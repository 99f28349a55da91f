//! A terminal with a program on it, as a person has: a pty whose other end the test types into and reads.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use nix::pty::{Winsize, openpty};

/// The test's side of the terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Terminal {
    /// Starts the command with the terminal as its controlling terminal and stdio.
    pub fn spawn(command: &mut Command, columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a pty");
        let slave = || pty.slave.try_clone().expect("dup the slave");
        command.stdin(slave()).stdout(slave()).stderr(slave());
        // SAFETY: setsid and ioctl are async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("spawn on the terminal");
        drop(pty.slave);
        // The command holds copies of the slave; they must go, or the terminal never ends.
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let (master, output) = Self::listen(pty.master);
        Self { master, child, output, seen: Vec::new() }
    }

    fn listen(master: OwnedFd) -> (File, Receiver<Vec<u8>>) {
        let master = File::from(master);
        let mut reader = master.try_clone().expect("dup the master");
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO says that the last holder of the slave is gone.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        (master, output)
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("type into the terminal");
    }

    /// Waits until the text has been seen, and forgets everything up to it.
    pub fn expect(&mut self, text: &str, deadline: Duration) {
        let end = Instant::now() + deadline;
        loop {
            let place = self.seen.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(place) = place {
                self.seen.drain(..place + text.len());
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(error) => {
                    panic!("no {text:?} ({error}); seen: {:?}", String::from_utf8_lossy(&self.seen))
                }
            }
        }
    }

    /// Changes the size, as dragging a window's corner does.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).expect("resize");
    }

    /// Waits for the program's end.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        super::until("the program on the terminal ends", deadline, || self.child.try_wait().expect("wait"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
