//! `bulkhead doctor`: checks what a microVM needs of this machine, before a microVM fails to start.
//!
//!   Config, / ─▶ one function per check ─▶ Finding (verdict, what was seen, what to do)
//!
//! Checks only read, but for two that run the VMM as a process with a deadline: for its version, and for its own probe of KVM,
//! since a KVM that can be opened may still run no guests. One loads a BPF program and drops it. Files are read below a given root, so that tests can bring their own.

mod artefacts;
mod host;
mod isolation;
mod user;

use std::{error::Error, path::Path};

use bulkhead_sys::chain;
use serde::Serialize;

use crate::{config::Config, sandbox::binfmt};

const BINFMT_HINT: &str =
    "register the handler on the host with the flag F, or take it out of `binfmt` in the configuration";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It works, but slower, with less, or with a thinner wall.
    Warn,
    /// No container can run.
    Fail,
}

/// What one check found. Its JSON has these four members, `hint` null when there is none; docs/hosts.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    pub subject: &'static str,
    pub detail: String,
    pub hint: Option<&'static str>,
}

impl Finding {
    fn ok(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject, detail: detail.into(), hint: None }
    }

    fn warn(subject: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { verdict: Verdict::Warn, subject, detail: detail.into(), hint: Some(hint) }
    }

    fn fail(subject: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { verdict: Verdict::Fail, subject, detail: detail.into(), hint: Some(hint) }
    }

    /// One line, and one with the hint.
    pub fn render(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let mut text = format!("{verdict:<5} {}: {}\n", self.subject, self.detail);
        if let Some(hint) = self.hint {
            text.push_str(&format!("      hint: {hint}\n"));
        }
        text
    }
}

/// All findings as one JSON document.
#[derive(Debug, Serialize)]
pub struct Report {
    /// This program's version.
    version: &'static str,
    /// Findings with the verdict `fail`.
    failed: usize,
    findings: Vec<Finding>,
}

impl Report {
    pub fn new(findings: Vec<Finding>) -> Self {
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
        Self { version: env!("CARGO_PKG_VERSION"), failed, findings }
    }
}

/// All checks, in the order in which a start would meet them. Each finding is handed over as soon as it is known.
pub fn examine(config: Result<Config, impl Error>, mut found: impl FnMut(Finding)) {
    let root = Path::new("/");
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        found(host::privileges());
    } else {
        let uid = rustix::process::geteuid().as_raw();
        user::examine(root, &user::User::find(root, uid)).into_iter().for_each(&mut found);
    }
    let release = host::kernel_release();
    found(host::kernel(&release));
    found(host::user_namespaces(root));
    found(host::cgroups(root));
    for check in [
        isolation::smt,
        isolation::vulnerabilities,
        isolation::microcode,
        isolation::same_page_merging,
        isolation::swap,
        isolation::nested,
        isolation::clock,
    ] {
        found(check(root));
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            found(Finding::fail("configuration", chain(&error), "correct or remove the file"));
            return;
        }
    };
    found(host::memory(root, config.memory_mib));
    found(host::file_watches(root, config.exclusive_rootfs));
    found(host::network(root, config.vhost_net));
    found(host::port_forward(is_root, config.port_forward));
    found(artefacts::kernel(&config.kernel));
    found(artefacts::initramfs(&config.initramfs));
    let vmm = artefacts::vmm(&config.vmm);
    let runs = vmm.verdict == Verdict::Ok;
    found(vmm);
    if runs {
        found(artefacts::kvm(&config.vmm));
    }
    found(host::huge_page_recovery(root, &release));
    let (_, missing) = binfmt::find(&config.binfmt);
    for warning in missing {
        found(Finding::warn("foreign binaries", warning, BINFMT_HINT));
    }
}

#[cfg(test)]
mod tests;
