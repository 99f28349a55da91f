//! Steps that are one command: checks, tests with counts of their own, builds.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{harness, output::Output, tally::Tally};

/// Passes or fails as a whole.
pub fn check(tally: &mut Tally, name: &str, command: &mut Command) {
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => tally.pass(),
        Ok(status) => tally.fail(format!("{name} ({status})")),
        Err(error) => tally.fail(format!("{name} ({error})")),
    }
}

/// Runs test programs that print libtest's last lines.
pub fn tests(tally: &mut Tally, name: &str, command: &mut Command) {
    let mut total = harness::Counts::default();
    let ended = Output::of(command.stdin(Stdio::null())).and_then(|mut output| {
        for line in output.rest() {
            println!("{line}");
            if let Some(counts) = harness::counts(&line) {
                total.passed += counts.passed;
                total.failed += counts.failed;
                total.ignored += counts.ignored;
            }
        }
        output.end()
    });
    match ended {
        Ok(status) => tally.add(&format!("{name} ({status})"), total, status.success()),
        Err(error) => tally.add(&format!("{name} ({error})"), total, false),
    }
}

/// Builds test programs without running them: the paths of those from `tests/` directories, by name. A build counts as a
/// check.
pub fn build(tally: &mut Tally, name: &str, command: &mut Command) -> BTreeMap<String, PathBuf> {
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
        Ok(output) if output.status.success() => {
            tally.pass();
            String::from_utf8_lossy(&output.stdout).lines().filter_map(test_program).collect()
        }
        Ok(output) => {
            tally.fail(format!("{name} ({})", output.status));
            BTreeMap::new()
        }
        Err(error) => {
            tally.fail(format!("{name} ({error})"));
            BTreeMap::new()
        }
    }
}

/// What cargo says of an artifact, if it is the program of a test target.
fn test_program(line: &str) -> Option<(String, PathBuf)> {
    #[derive(serde::Deserialize)]
    struct Message {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(serde::Deserialize)]
    struct Target {
        kind: Vec<String>,
        name: String,
    }
    let message: Message = serde_json::from_str(line).ok()?;
    let program = message.executable?;
    (message.target.kind == ["test"]).then_some((message.target.name, program))
}

#[cfg(test)]
mod tests;
