//! The table: what was measured, against what, with its spread and its goal.

use std::fmt::Write;

use super::{samples::Samples, timeline::Timeline};

/// A control that moves more than this between the halves of the run voids the ratios.
const DRIFT: f64 = 0.15;

/// One row: a number with its spread, and what it should be.
#[derive(Debug)]
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub samples: Samples,
    /// At most this.
    pub goal: Option<f64>,
}

/// Everything of one run.
#[derive(Debug)]
pub struct Report {
    /// Where it ran: kvm or lab.
    pub machine: String,
    pub rounds: usize,
    /// Seconds of the control, `runc run`.
    pub control: Samples,
    pub ratios: Vec<Row>,
    pub figures: Vec<Row>,
    pub timeline: Timeline,
}

impl Report {
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# Benchmark\n\nMachine: {}. Rounds: {}, interleaved.\n",
            self.machine, self.rounds
        );
        let drift = self.control.drift();
        let _ = writeln!(
            text,
            "Control: `runc run` {:.2} s (min {:.2}, max {:.2}); its halves differ by {:.0} %.\n",
            self.control.median(),
            self.control.min(),
            self.control.max(),
            drift * 100.0
        );
        if drift > DRIFT {
            let _ = writeln!(
                text,
                "**No ratios: the control moved by more than {:.0} % between the halves of the run.**\n",
                DRIFT * 100.0
            );
        } else {
            table(&mut text, "Ratio", &self.ratios);
        }
        table(&mut text, "Figure", &self.figures);
        let _ = writeln!(
            text,
            "| Phase of `bulkhead run` | since the command, ms | min | max |\n|---|---|---|---|"
        );
        for (phase, samples) in self.timeline.phases() {
            let (median, min, max) = (samples.median(), samples.min(), samples.max());
            let _ = writeln!(text, "| {phase} | {median:.0} | {min:.0} | {max:.0} |");
        }
        text
    }
}

fn table(text: &mut String, head: &str, rows: &[Row]) {
    let _ = writeln!(text, "| {head} | median | min | max | goal | |\n|---|---|---|---|---|---|");
    for row in rows {
        let median = row.samples.median();
        let (goal, verdict) = match row.goal {
            Some(goal) => (format!("≤ {goal}"), if median <= goal { "met" } else { "missed" }),
            None => ("-".to_owned(), ""),
        };
        let _ = writeln!(
            text,
            "| {} | {median:.2} {} | {:.2} | {:.2} | {goal} | {verdict} |",
            row.what,
            row.unit,
            row.samples.min(),
            row.samples.max()
        );
    }
    text.push('\n');
}
