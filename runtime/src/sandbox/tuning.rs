//! What the guest is set to before its first container: the host's settings, read from /proc/sys.

use std::{fs, path::Path};

use bulkhead_protocol::tuning::{Overcommit, Setting, Tuning};
use bulkhead_sys::meminfo;

/// proc_sys_vm(5): the kernel promises no more than its limit.
const NEVER: u64 = 2;

/// For a guest of at most `max_memory_mib`. What the host does not say is left as the guest has it.
pub(crate) fn of_host(max_memory_mib: u32) -> Tuning {
    read(Path::new("/proc"), max_memory_mib)
}

fn read(proc: &Path, max_memory_mib: u32) -> Tuning {
    let number = |file: &str| {
        let text = fs::read_to_string(proc.join("sys").join(file)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let mut tuning = Tuning::default();
    for setting in Setting::all() {
        if let Some(value) = number(setting.file()) {
            tuning.raise(setting, value);
        }
    }
    if number("vm/overcommit_memory") == Some(NEVER) {
        tuning.overcommit = Overcommit::Limit(commit_limit(proc).min(u64::from(max_memory_mib) * 1024));
    }
    tuning
}

/// What the host's kernel promises in all, in KiB: its ratio or its number of KiB, whichever it has been given.
fn commit_limit(proc: &Path) -> u64 {
    let text = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    meminfo::kib(&text, "CommitLimit").unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
