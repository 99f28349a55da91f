//! Which clock the host's kernel keeps time by: the server says it to the VMM, whose jail has no /sys.

use std::{fs, path::Path};

const CURRENT: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";

/// The host's current clock source below `root`; empty when nothing says it.
pub(crate) fn current(root: &Path) -> String {
    fs::read_to_string(root.join(CURRENT)).unwrap_or_default().trim().to_owned()
}

/// Whether it is the TSC itself, or Hyper-V's page that scales it: the two that KVM takes for one clock on all CPUs
/// (`gtod_is_based_on_tsc` in Linux). A kernel that found its TSC unstable has moved to another.
pub(crate) fn is_tsc(name: &str) -> bool {
    matches!(name, "tsc" | "hyperv_clocksource_tsc_page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_the_tsc_counts_as_one() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(current(root.path()), "");
        let path = root.path().join(CURRENT);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "tsc\n").unwrap();
        assert_eq!(current(root.path()), "tsc");
        for (name, stable) in [
            ("tsc", true),
            ("hyperv_clocksource_tsc_page", true),
            ("kvm-clock", false),
            ("hpet", false),
            ("", false),
        ] {
            assert_eq!(is_tsc(name), stable, "{name}");
        }
    }
}
