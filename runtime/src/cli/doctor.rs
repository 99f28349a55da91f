//! `bulkhead doctor`: prints the findings as they come; the exit code says whether a container could run.

use super::{Context, print};
use crate::{
    doctor::{Verdict, examine},
    error::Error,
};

/// Check whether this machine can run microVMs, and say what to do where it cannot
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let (mut total, mut failed) = (0, 0);
        examine(context.config(), |finding| {
            total += 1;
            failed += usize::from(finding.verdict == Verdict::Fail);
            // Whoever stops reading still gets the exit code.
            let _ = print(&finding.render());
        });
        if failed > 0 { Err(Error::Doctor { failed, total }) } else { Ok(0) }
    }
}
