//! `bulkhead doctor`: prints the findings as they come, or all of them as JSON; the exit code says whether a container
//! could run.

use super::{Context, print};
use crate::{
    doctor::{Report, Verdict, examine},
    error::Error,
};

/// Check whether this machine can run microVMs, and say what to do where it cannot
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document when all is known: version, failed, and findings of subject, verdict (ok, warn, fail),
    /// detail and hint
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let mut findings = Vec::new();
        examine(context.config(), |finding| {
            if !self.json {
                // Whoever stops reading still gets the exit code.
                let _ = print(&finding.render());
            }
            findings.push(finding);
        });
        let total = findings.len();
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
        if self.json {
            super::print_json(&Report::new(findings))?;
        }
        if failed > 0 { Err(Error::Doctor { failed, total }) } else { Ok(0) }
    }
}
