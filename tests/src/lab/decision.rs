//! Where things that need KVM run on this machine: on its own `/dev/kvm`, or in the lab.
//!
//! A `/dev/kvm` that exists says little: some run only specially patched guests. So the VMM is asked to run a few
//! instructions of guest code (`bulkhead-vmm --probe-kvm`), and its answer decides.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::places;

/// The decision, with its reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    Kvm { why: String },
    Lab { why: String },
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm { why } => write!(f, "kvm: {why}"),
            Self::Lab { why } => write!(f, "lab: {why}"),
        }
    }
}

/// Asks the staged VMM. The environment may force the answer: `BULKHEAD_WHERE=kvm` or `lab`.
#[must_use]
pub fn decide() -> Where {
    match std::env::var("BULKHEAD_WHERE").as_deref() {
        Ok("kvm") => return Where::Kvm { why: "BULKHEAD_WHERE asks for it".to_owned() },
        Ok("lab") => return Where::Lab { why: "BULKHEAD_WHERE asks for it".to_owned() },
        _ => {}
    }
    if !Path::new("/dev/kvm").exists() {
        return Where::Lab { why: "this machine has no /dev/kvm".to_owned() };
    }
    let vmm = places::stage().join("libexec/bulkhead/bulkhead-vmm");
    if !vmm.exists() {
        return Where::Lab { why: format!("{} is not built, so /dev/kvm is not probed", vmm.display()) };
    }
    // The probe has a deadline of its own; timeout(1) is for a KVM that does not even give control back.
    let mut probe = Command::new("timeout");
    probe.args(["-s", "KILL", "30"]).arg(&vmm).arg("--probe-kvm").stdin(Stdio::null());
    judge(probe.output())
}

fn judge(output: std::io::Result<std::process::Output>) -> Where {
    match output {
        Err(error) => Where::Lab { why: format!("the probe of /dev/kvm could not run: {error}") },
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let why = said.lines().next().unwrap_or("the probe of /dev/kvm said nothing").trim().to_owned();
            if output.status.success() { Where::Kvm { why } } else { Where::Lab { why } }
        }
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
