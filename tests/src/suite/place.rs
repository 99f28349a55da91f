//! Where tests that boot machines run: a lab of this run's own, or this machine where its `/dev/kvm` will do.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::RecvTimeoutError,
    time::Duration,
};

use super::{harness, machines::Place, output::Output};

/// A lab that says nothing for so long is stuck: no test takes as long, a tour of podman about 330 s.
const SILENCE: Duration = Duration::from_secs(720);

/// How long a program may take unless that is said.
const DEADLINE: Duration = Duration::from_secs(1800);

/// A place for programs that may take so long each.
#[derive(Debug)]
pub struct Machine {
    lab: Option<Lab>,
    deadline: Duration,
}

/// The lab named by `BULKHEAD_LAB`, whose end the caller of this program sees to.
#[derive(Debug)]
struct Lab {
    command: PathBuf,
}

impl Lab {
    fn does(&self, verb: &str) -> bool {
        Command::new(&self.command).arg(verb).status().is_ok_and(|status| status.success())
    }
}

impl Machine {
    /// This machine, whose `/dev/kvm` will do.
    pub fn this() -> Self {
        Self { lab: None, deadline: DEADLINE }
    }

    /// A fresh lab, by the command that makes labs; none if it does not come up.
    pub fn lab(command: impl Into<PathBuf>) -> Option<Self> {
        let lab = Lab { command: command.into() };
        lab.does("up").then_some(Self { lab: Some(lab), deadline: DEADLINE })
    }

    pub fn is_lab(&self) -> bool {
        self.lab.is_some()
    }

    /// How long a program may take from now on.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    fn command(&self, program: &Path) -> Command {
        let seconds = self.deadline.as_secs().to_string();
        let mut command = match &self.lab {
            Some(lab) => {
                let mut command = Command::new(&lab.command);
                command.args(["exec", "--timeout", &seconds, "--"]);
                command
            }
            None => {
                let mut command = Command::new("timeout");
                command.args(["--kill-after=10", &seconds]);
                command
            }
        };
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// The names of a program's tests; nothing when it cannot be asked.
    pub fn list(program: &Path) -> Option<BTreeSet<String>> {
        let output = Command::new(program).arg("--list").stdin(Stdio::null()).output().ok()?;
        let listed = String::from_utf8_lossy(&output.stdout);
        let tests = listed.lines().filter_map(harness::listed).map(str::to_owned).collect();
        output.status.success().then_some(tests)
    }
}

impl Place for Machine {
    fn run(&mut self, program: &Path, tests: &BTreeSet<String>, line: &mut dyn FnMut(&str)) {
        let mut command = self.command(program);
        command.args(["--test-threads=2", "--exact"]).args(tests);
        let mut output = match Output::of(&mut command) {
            Ok(output) => output,
            Err(error) => return line(&format!("start {}: {error}", program.display())),
        };
        loop {
            match output.next(SILENCE) {
                Ok(said) => line(&said),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(lab) = &self.lab {
                        line(&format!(
                            "== the lab has been silent for {} s: down with it",
                            SILENCE.as_secs()
                        ));
                        lab.does("down");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Tests without a result say what its status could.
        let _ = output.end();
    }

    fn replace(&mut self) -> bool {
        let Some(lab) = &self.lab else { return false };
        // It may have died already.
        lab.does("down");
        lab.does("up")
    }
}

#[cfg(test)]
mod tests;
