//! The same bundle run by another runtime and by Bulkhead: what the container sees must agree.
//!
//!   Case ─▶ bundle ─ crun or runc run ─▶ Finished ─▶ view ┐
//!       └─▶ bundle ─ bulkhead run ────▶ Finished ─▶ view ─┴─▶ differences ─ allowed ─▶ what is wrong
//!
//! Both bundles are made by the same function, so that what one container writes the other does not see. A difference
//! is right only when [`allowed`] has it, with its reason.

mod allowed;
mod reference;
mod view;

use std::{fmt::Write, fs, os::unix::fs::PermissionsExt};

pub use reference::Reference;
use view::{Namespaces, View};

use crate::host::{Bundle, Finished, TestHost};

/// What stands where one side has nothing.
const NOTHING: &str = "(nothing)";

/// One bundle: a small change of the default one.
#[derive(Debug)]
pub struct Case {
    name: &'static str,
    reference: Reference,
    end: End,
    change: fn(Bundle) -> Bundle,
}

/// How the reference must end, lest two runtimes agree on a mistake of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exited(i32),
    /// Nothing runs. The message is each runtime's own; ours has this word.
    Refused(&'static str),
}

impl Case {
    /// Against crun, which is the faster one.
    pub fn new(name: &'static str, change: fn(Bundle) -> Bundle) -> Self {
        Self { name, reference: Reference::Crun, end: End::Exited(0), change }
    }

    /// The program runs and ends with this code.
    pub fn exits(self, code: i32) -> Self {
        Self { end: End::Exited(code), ..self }
    }

    /// For what crun 1.8 lacks, or does otherwise than the spec says.
    pub fn by_runc(self) -> Self {
        Self { reference: Reference::Runc, ..self }
    }

    /// Nothing runs, and our message has this word.
    pub fn refused(self, word: &'static str) -> Self {
        Self { end: End::Refused(word), ..self }
    }

    /// What differs without a reason, as lines to read.
    fn differences(&self, host: &TestHost) -> String {
        let bundle = || {
            let bundle = (self.change)(host.bundle().own_rootfs());
            // Users of a container who are nobody on the host go through it to the rootfs.
            fs::set_permissions(bundle.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
            bundle
        };
        let theirs = self.reference.run(host, &bundle());
        let ours = host.run(&bundle());
        let as_wanted = match self.end {
            End::Exited(code) => theirs.code() == code,
            End::Refused(word) => theirs.code() != 0 && ours.code() != 0 && ours.errors().contains(word),
        };
        if !as_wanted {
            let told = |who, of: &Finished| format!("  {who} {}: {}{}\n", of.code(), of.text(), of.errors());
            let (theirs, ours) = (told("the reference", &theirs), told("ours", &ours));
            return format!("{}: not {:?}\n{theirs}{ours}", self.name, self.end);
        }
        if matches!(self.end, End::Refused(_)) {
            return String::new();
        }
        let theirs = View::of(&theirs, &Namespaces::of_this_process());
        let ours = View::of(&ours, &Namespaces::first_of_a_kernel());
        let mut text = String::new();
        for (key, theirs, ours) in theirs.differences(&ours) {
            if !allowed::is_allowed(self.name, &key, &theirs, &ours) {
                let _ =
                    writeln!(text, "{}: {key}: {:?} {theirs:?}, ours {ours:?}", self.name, self.reference);
            }
        }
        text
    }
}

/// Runs each case with both runtimes.
///
/// # Panics
/// With all differences that nothing explains.
pub fn agree(cases: &[Case]) {
    let host = TestHost::new();
    fs::set_permissions(host.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let differences: String = cases.iter().map(|case| case.differences(&host)).collect();
    assert!(differences.is_empty(), "differences that are not on the list:\n{differences}");
}
