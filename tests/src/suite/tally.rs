//! Counts of what ran, and what there is to say of it in the end.

use std::fmt;

use super::{harness::Counts, machines::Record};

/// A check counts as one test.
#[derive(Debug, Default)]
pub struct Tally {
    passed: u32,
    skipped: u32,
    /// Failures that have a name, or how a command ended whose tests failed.
    failures: Vec<String>,
    /// Failures, however many of them have a line of their own.
    failed: u32,
    skips: Vec<String>,
    /// Tests that failed in one lab and passed in the next.
    second: Vec<String>,
}

impl Tally {
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    pub fn fail(&mut self, what: impl Into<String>) {
        self.failed += 1;
        self.failures.push(what.into());
    }

    /// Something that cannot run here, and why.
    pub fn skip(&mut self, what: impl Into<String>) {
        self.skipped += 1;
        self.skips.push(what.into());
    }

    /// A command that ran many tests. One that failed without a failed test counts as a failure: a build broke, or a
    /// program crashed.
    pub fn add(&mut self, name: &str, counts: Counts, succeeded: bool) {
        self.passed += counts.passed;
        self.skipped += counts.ignored;
        self.failed += counts.failed;
        if !succeeded {
            self.failed += u32::from(counts.failed == 0);
            self.failures.push(name.to_owned());
        }
    }

    /// The tests of one program, by name.
    pub fn record(&mut self, record: Record) {
        self.passed += record.passed;
        self.skipped += record.ignored;
        self.second.extend(record.second);
        for name in record.failed {
            self.fail(name);
        }
    }

    pub fn succeeded(&self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for Tally {
    /// Several lines; the last one has the counts alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for skip in &self.skips {
            writeln!(f, "skipped: {skip}")?;
        }
        for name in &self.second {
            writeln!(f, "passed at the second try only: {name}")?;
        }
        for failure in &self.failures {
            writeln!(f, "failed: {failure}")?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests;
