//! Waiting for processes and conditions, always with a deadline, never by sleeping a guessed time.

use std::{
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl Finished {
    /// The exit code; panics with all output when a signal ended the process.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }

    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Panics with all output unless the exit code is `code`.
    pub fn exited(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "stdout: {}\nstderr: {}", self.text(), self.errors());
    }

    /// Panics unless the exit code is 0; returns stdout.
    pub fn success(&self) -> String {
        self.exited(0);
        self.text()
    }

    /// Panics unless the exit code is `code` and stderr has every word; returns stderr.
    pub fn failure(&self, code: i32, words: &[&str]) -> String {
        self.exited(code);
        let errors = self.errors();
        for word in words {
            assert!(errors.contains(word), "no {word:?} in stderr: {errors}");
        }
        errors
    }
}

/// Runs a command to its end, feeding `input`, reading both outputs at once.
pub fn finish(command: &mut Command, input: &[u8], deadline: Duration) -> Finished {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let started = Instant::now();
    // A group of its own: what the command left behind may hold its pipes, and must go with it at the deadline.
    command.process_group(0).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("spawn");
    let (done, finished) = mpsc::channel();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            if finished.recv_timeout(deadline).is_err() {
                let _ = nix::sys::signal::killpg(pid, nix::sys::signal::Signal::SIGKILL);
            }
        });
        let result = talk(&mut child, input);
        let _ = done.send(());
        result
    });
    let took = started.elapsed();
    assert!(took < deadline, "no end within {deadline:?}: {command:?}\n{result:?}");
    Finished { took, ..result }
}

fn talk(child: &mut Child, input: &[u8]) -> Finished {
    let stdin = child.stdin.take();
    let mut out = child.stdout.take().expect("piped");
    let mut err = child.stderr.take().expect("piped");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        scope.spawn(|| err.read_to_end(&mut stderr));
        out.read_to_end(&mut stdout)
    })
    .expect("read stdout");
    let status = child.wait().expect("wait");
    Finished { status, stdout, stderr, took: Duration::ZERO }
}

/// Looks again and again until `condition` gives something; panics with `what` after the deadline.
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}
