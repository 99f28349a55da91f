//! `bulkhead-suite`: every check and every test, for `make test`. Ends with one line: N passed, N failed, N skipped.
//!
//! Environment: CARGO_TARGET_DIR, BULKHEAD_STAGE and LAB (the bulkhead-lab command), all set by the Makefile; BULKHEAD_LAB, the
//! name of the lab that it may use; TESTS, an extended regular expression, picks among the tests that need machines.
//! Exit status 1 when anything failed.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use bulkhead_tests::{
    lab::{
        decision::{self, Where},
        newer,
    },
    suite::{
        machines,
        place::Machine,
        steps::{build, check, tests},
        tally::Tally,
    },
};
use regex_lite::Regex;

/// Longer than any of the integration tests' programs, and than the end-to-end tests' one, in a lab on a busy machine.
const INTEGRATION: Duration = Duration::from_secs(1200);
const END_TO_END: Duration = Duration::from_secs(2700);
/// Tests that need what a developer's machine may not have, and where it lies. The lab has all of it.
const ENGINES: [(&str, &str); 4] = [
    ("podman::", "/usr/bin/podman"),
    ("docker::", "/usr/sbin/dockerd"),
    ("containerd::", "/usr/bin/containerd"),
    (
        "schema::features",
        "/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema/features-schema.json",
    ),
];

struct Suite {
    start: Instant,
    tally: Tally,
    /// Of the tests that need machines.
    chosen: Regex,
}

fn main() -> ExitCode {
    let chosen = match Regex::new(&env::var("TESTS").unwrap_or_default()) {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("TESTS is no regular expression: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut suite = Suite { start: Instant::now(), tally: Tally::default(), chosen };
    suite.check("format", cargo(&["fmt", "--all", "--check"]));
    let deny_warnings = ["--", "-D", "warnings"];
    let clippy = |of: &[&str]| cargo(&[&["clippy", "--quiet"], of, &deny_warnings].concat());
    suite.check("lints", clippy(&["--workspace", "--all-targets"]));
    suite.check("lints of the end-to-end tests", clippy(&["-p", "bulkhead-tests", "--test", "e2e"]));
    suite.heading("unit tests");
    let unit_tests = ["test", "--workspace", "--lib", "--bins", "--no-fail-fast", "--quiet"];
    tests(&mut suite.tally, "unit tests", &mut cargo(&unit_tests));
    let integration = suite.build("build of the integration tests", &["test", "--workspace", "--tests"]);
    let end_to_end = suite.build("build of the end-to-end tests", &["test", "--workspace", "--test", "e2e"]);
    suite.in_machines(&integration, &end_to_end);
    suite.heading("done");
    println!("{}", suite.tally);
    if suite.tally.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments);
    command
}

impl Suite {
    /// With the minutes since the beginning.
    fn heading(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        println!("== {text} ({}:{:02})", seconds / 60, seconds % 60);
    }

    fn check(&mut self, name: &str, mut command: Command) {
        self.heading(name);
        check(&mut self.tally, name, &mut command);
    }

    fn build(&mut self, name: &str, arguments: &[&str]) -> Vec<PathBuf> {
        self.heading(name);
        build(&mut self.tally, name, &mut cargo(arguments)).into_values().collect()
    }

    fn in_machines(&mut self, integration: &[PathBuf], end_to_end: &[PathBuf]) {
        let place = decision::decide();
        println!("== what needs KVM runs on {place}");
        let mut machine = match place {
            Where::Kvm { .. } => Machine::this(),
            Where::Lab { .. } => {
                let command = env::var_os("LAB").unwrap_or_else(|| OsString::from("bulkhead-lab"));
                let Some(machine) = Machine::lab(command) else { return self.tally.fail("the lab comes up") };
                self.tally.pass();
                machine
            }
        };
        for (name, programs, deadline) in
            [("integration tests", integration, INTEGRATION), ("end-to-end tests", end_to_end, END_TO_END)]
        {
            self.heading(name);
            machine.set_deadline(deadline);
            for program in programs {
                self.program(&mut machine, program);
            }
        }
    }

    fn program(&mut self, machine: &mut Machine, program: &Path) {
        let Some(mut tests) = Machine::list(program) else {
            return self.tally.fail(format!("{} lists its tests", program.display()));
        };
        tests.retain(|test| self.chosen.is_match(test));
        if !machine.is_lab() {
            let newer = newer::Suite::ALL.map(|suite| ("newer::", newer::place(suite)));
            let needed = ENGINES.map(|(prefix, file)| (prefix, PathBuf::from(file)));
            for (prefix, file) in needed.into_iter().chain(newer).filter(|(_, file)| !file.exists()) {
                let missing: Vec<_> = tests.extract_if(.., |test| test.starts_with(prefix)).collect();
                for test in missing {
                    self.tally.skip(format!("{test}: there is no {}", file.display()));
                }
            }
        }
        if !tests.is_empty() {
            let record = machines::run(machine, program, &tests, &mut |line| println!("{line}"));
            self.tally.record(record);
        }
    }
}
