//! Settings of the host that weaken the isolation between microVMs, or between microVMs and the host, although containers run:
//! docs/hosts.md says what to do about each.
//!
//! Everything is read from /proc and /sys, below a given root.

use std::{fs, path::Path};

use super::Finding;
use crate::sandbox::clock_source;

const VULNERABILITIES: &str = "sys/devices/system/cpu/vulnerabilities";
/// Characters of one line of the kernel that are shown.
const SHOWN: usize = 120;

fn read(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

/// Two threads of a core share its caches and buffers, which is where most leaks between guests were found.
pub(super) fn smt(root: &Path) -> Finding {
    let subject = "SMT";
    match read(root, "sys/devices/system/cpu/smt/active").as_deref() {
        Some("1") => Finding::warn(
            subject,
            "on: vCPUs of different pods may run on one core at the same time",
            "where pods do not trust each other, boot with nosmt or give each pod cores of its own; docs/hosts.md",
        ),
        Some(_) => Finding::ok(subject, "off"),
        None => Finding::ok(subject, "the kernel does not say; this machine may be virtual"),
    }
}

/// What the kernel itself calls vulnerable.
pub(super) fn vulnerabilities(root: &Path) -> Finding {
    let subject = "vulnerabilities";
    let Ok(entries) = fs::read_dir(root.join(VULNERABILITIES)) else {
        return Finding::ok(subject, "the kernel does not say");
    };
    let mut open: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let text: String = text.trim().chars().take(SHOWN).collect();
            // "Vulnerable", "KVM: Vulnerable", "Mitigation: ...; SMT vulnerable".
            let vulnerable = text.to_ascii_lowercase().contains("vulnerable");
            vulnerable.then(|| format!("{}: {text}", entry.file_name().to_string_lossy()))
        })
        .collect();
    open.sort();
    if open.is_empty() {
        return Finding::ok(subject, "the kernel reports none");
    }
    let hint = "update microcode and kernel, and boot without mitigations=off; docs/hosts.md";
    Finding::warn(subject, open.join(" | "), hint)
}

pub(super) fn microcode(root: &Path) -> Finding {
    let subject = "microcode";
    match read(root, "sys/devices/system/cpu/cpu0/microcode/version") {
        Some(version) => {
            Finding::ok(subject, format!("revision {version}; ask the vendor whether it is the latest"))
        }
        None => Finding::ok(subject, "the kernel does not say; this machine may be virtual"),
    }
}

/// Guest memory is kept out of it by the VMM.
pub(super) fn same_page_merging(root: &Path) -> Finding {
    let subject = "page merging";
    match read(root, "sys/kernel/mm/ksm/run").as_deref() {
        Some("1") => Finding::ok(subject, "KSM is on; guest memory takes no part in it"),
        _ => Finding::ok(subject, "KSM is off"),
    }
}

pub(super) fn swap(root: &Path) -> Finding {
    let subject = "swap";
    let text = read(root, "proc/swaps").unwrap_or_default();
    // The first line is a heading. zram stays in memory.
    let areas = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let on_disk: Vec<_> = areas.filter(|area| !area.starts_with("/dev/zram")).collect();
    if on_disk.is_empty() {
        return Finding::ok(subject, "guest memory does not go to a disk");
    }
    let detail = format!("guest memory may be written to {} and stay there", on_disk.join(", "));
    Finding::warn(
        subject,
        detail,
        "turn swap off, encrypt it, or set memory.swap.max of the pods' cgroup; docs/hosts.md",
    )
}

/// Nested virtualisation of the host: guests here never have it.
pub(super) fn nested(root: &Path) -> Finding {
    let subject = "nested virtualization";
    let on = ["kvm_intel", "kvm_amd"].into_iter().find_map(|module| {
        let value = read(root, &format!("sys/module/{module}/parameters/nested"))?;
        Some((module, matches!(value.as_str(), "1" | "Y")))
    });
    match on {
        Some((module, true)) => {
            let detail =
                format!("{module} allows it; guests of Bulkhead never get it, guests of other programs may");
            Finding::ok(subject, detail)
        }
        Some((module, false)) => Finding::ok(subject, format!("off in {module}")),
        None => Finding::ok(subject, "neither kvm_intel nor kvm_amd is loaded"),
    }
}

pub(super) fn clock(root: &Path) -> Finding {
    let subject = "clock";
    let name = clock_source::current(root);
    if clock_source::is_tsc(&name) {
        return Finding::ok(subject, format!("the host keeps time by its TSC ({name}), and guests can too"));
    }
    let detail = if name.is_empty() {
        "the kernel does not say".into()
    } else {
        format!("the host keeps time by {name}: guests read their clock more slowly")
    };
    Finding::warn(
        subject,
        detail,
        "look into the kernel's log for the reason, if the kernel found the TSC unstable; docs/hosts.md",
    )
}

#[cfg(test)]
mod tests;
