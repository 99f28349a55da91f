//! Tests that boot machines: each has a result by its name, wherever it ran in the end.
//!
//! ```text
//!  all ──run──▶ results ──none: the place was lost──▶ another place, those without a result (at most `ATTEMPTS`)
//!                  └──failed, in a lab──▶ one second try in a fresh one, and told by name
//! ```
//!
//! The lab is an emulation with faults of its own (docs/lab.md): they must not count as ours, nor go unseen.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::harness::{Outcome, outcome};

/// Places in which a test may be without a result before it has failed.
const ATTEMPTS: u32 = 3;

/// Where a test program runs.
pub trait Place {
    /// Runs these tests of a program and hands on each line that it prints. Comes back when the program has ended or the
    /// place is lost.
    fn run(&mut self, program: &Path, tests: &BTreeSet<String>, line: &mut dyn FnMut(&str));

    /// Makes a fresh place of this one; false if it is of no kind that fails by itself, or there is none.
    fn replace(&mut self) -> bool;
}

/// What came of the tests of one program.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub passed: u32,
    pub ignored: u32,
    /// By name; a test without a result is one of them.
    pub failed: Vec<String>,
    /// Those that passed, but in a second try only.
    pub second: Vec<String>,
}

/// Runs the tests, and those that need it once more. `say` gets everything that is printed, and a line for each turn.
pub fn run(
    place: &mut impl Place,
    program: &Path,
    tests: &BTreeSet<String>,
    say: &mut dyn FnMut(&str),
) -> Record {
    let mut results: BTreeMap<String, Outcome> = BTreeMap::new();
    for attempt in 1..=ATTEMPTS {
        let todo: BTreeSet<_> = tests.iter().filter(|test| !results.contains_key(*test)).cloned().collect();
        if todo.is_empty() {
            break;
        }
        if attempt > 1 {
            say(&format!("== {} tests have no result", todo.len()));
            if !place.replace() {
                break;
            }
        }
        results.extend(results_of(place, program, &todo, say));
    }
    let failed: BTreeSet<_> =
        tests.iter().filter(|test| results.get(*test) == Some(&Outcome::Failed)).cloned().collect();
    let mut second = Vec::new();
    if !failed.is_empty() && place.replace() {
        say(&format!("== the second try of {}", join(&failed)));
        // No result is no better than the first one.
        for (test, outcome) in results_of(place, program, &failed, say) {
            if outcome == Outcome::Passed {
                second.push(test.clone());
            }
            results.insert(test, outcome);
        }
    }
    let ended = |wanted| tests.iter().filter(|test| results.get(*test) == Some(&wanted)).count() as u32;
    let (passed, ignored) = (ended(Outcome::Passed), ended(Outcome::Ignored));
    let good = |test: &&String| matches!(results.get(*test), Some(Outcome::Passed | Outcome::Ignored));
    Record { passed, ignored, failed: tests.iter().filter(|test| !good(test)).cloned().collect(), second }
}

/// The results of those that were asked for; whatever else looks like one is output of a test.
fn results_of(
    place: &mut impl Place,
    program: &Path,
    tests: &BTreeSet<String>,
    say: &mut dyn FnMut(&str),
) -> BTreeMap<String, Outcome> {
    let mut results = BTreeMap::new();
    place.run(program, tests, &mut |line| {
        say(line);
        if let Some((name, outcome)) = outcome(line)
            && tests.contains(name)
        {
            results.insert(name.to_owned(), outcome);
        }
    });
    results
}

fn join(tests: &BTreeSet<String>) -> String {
    tests.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
