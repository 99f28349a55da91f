//! The phases of a start, as `bulkhead run --timeline FILE` writes them: `phase milliseconds` a line.

use std::{collections::BTreeMap, fs, io, path::Path};

use super::samples::Samples;

/// Phase by phase, in the order of the start: milliseconds since the command was entered.
#[derive(Debug, Default)]
pub struct Timeline {
    order: Vec<String>,
    phases: BTreeMap<String, Samples>,
}

impl Timeline {
    /// Adds the phases of one run.
    pub fn add(&mut self, file: &Path) -> io::Result<()> {
        for line in fs::read_to_string(file)?.lines() {
            let mut words = line.split_whitespace();
            let (Some(phase), Some(Ok(at))) = (words.next(), words.next().map(str::parse::<f64>)) else {
                continue;
            };
            if !self.phases.contains_key(phase) {
                self.order.push(phase.to_owned());
            }
            self.phases.entry(phase.to_owned()).or_default().0.push(at);
        }
        Ok(())
    }

    pub fn phases(&self) -> impl Iterator<Item = (&str, &Samples)> {
        self.order.iter().map(|phase| (phase.as_str(), &self.phases[phase]))
    }

    /// Milliseconds between two phases, run by run.
    pub fn between(&self, from: &str, to: &str) -> Samples {
        let of = |phase: &str| self.phases.get(phase).cloned().unwrap_or_default().0;
        Samples(of(to).into_iter().zip(of(from)).map(|(to, from)| to - from).collect())
    }
}
