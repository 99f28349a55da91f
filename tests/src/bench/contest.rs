//! Runs competitors in turn, A B C, A B C, so that each round sees the same machine.

use std::{collections::BTreeMap, io, process::Command, time::Instant};

use super::samples::Samples;

/// One competitor: how it is called, and how to make its command for a round.
pub struct Competitor<'a> {
    pub name: &'a str,
    pub command: Box<dyn FnMut(usize) -> Command + 'a>,
}

impl std::fmt::Debug for Competitor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Competitor").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ContestError {
    #[error("start {name}")]
    Spawn { name: String, source: io::Error },
    #[error("{name} failed: {output}")]
    Failed { name: String, output: String },
}

/// Seconds from spawn to exit of each competitor in each round; one round before is not counted.
pub fn run(
    rounds: usize,
    competitors: &mut [Competitor<'_>],
) -> Result<BTreeMap<String, Samples>, ContestError> {
    let mut results: BTreeMap<String, Samples> = BTreeMap::new();
    for round in 0..=rounds {
        for competitor in &mut *competitors {
            let mut command = (competitor.command)(round);
            let started = Instant::now();
            let output = command
                .output()
                .map_err(|source| ContestError::Spawn { name: competitor.name.to_owned(), source })?;
            let took = started.elapsed();
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(ContestError::Failed { name: competitor.name.to_owned(), output: text });
            }
            if round > 0 {
                results.entry(competitor.name.to_owned()).or_default().0.push(took.as_secs_f64());
            }
        }
        eprintln!("bench: round {round} of {rounds}");
    }
    Ok(results)
}
