use std::fs;

use super::*;

/// A root directory with some files of /proc and /sys.
pub(super) fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

const UNIFIED: &str = "24 18 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const DYNAMIC: &str = "24 18 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,favordynmods\n";

#[test]
fn a_finding_is_a_line_and_its_hint_another() {
    assert_eq!(Finding::ok("KVM", "runs").render(), "ok    KVM: runs\n");
    assert_eq!(Finding::warn("a", "b", "c").render(), "warn  a: b\n      hint: c\n");
    assert_eq!(Finding::fail("a", "b", "c").render(), "fail  a: b\n      hint: c\n");
}

#[test]
fn the_hosts_kernel_must_be_recent() {
    for (release, verdict) in [
        ("6.1.0-30-amd64", Verdict::Ok),
        ("6.18", Verdict::Ok),
        ("10.0.0", Verdict::Ok),
        ("5.15.0-generic", Verdict::Warn),
        ("5.10.0-9-amd64", Verdict::Fail),
        ("4.19.0", Verdict::Fail),
    ] {
        assert_eq!(host::kernel(release).verdict, verdict, "{release}");
    }
}

#[test]
fn user_namespaces_must_be_there_and_allowed() {
    let path = "proc/sys/user/max_user_namespaces";
    assert_eq!(host::user_namespaces(root(&[(path, "100\n")]).path()).verdict, Verdict::Ok);
    assert_eq!(host::user_namespaces(root(&[(path, "0\n")]).path()).verdict, Verdict::Fail);
    assert_eq!(host::user_namespaces(root(&[]).path()).verdict, Verdict::Fail);
}

#[test]
fn cgroup2_must_be_mounted_and_hold_the_controllers() {
    let controllers = "sys/fs/cgroup/cgroup.controllers";
    let verdict = |files: &[(&str, &str)]| host::cgroups(root(files).path()).verdict;
    assert_eq!(
        verdict(&[("proc/self/mountinfo", UNIFIED), (controllers, "cpuset cpu io memory pids\n")]),
        Verdict::Ok
    );
    assert_eq!(verdict(&[("proc/self/mountinfo", UNIFIED), (controllers, "misc\n")]), Verdict::Warn);
    assert_eq!(
        verdict(&[("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - tmpfs t rw\n")]),
        Verdict::Warn
    );
}

const NX_HUGE_PAGES: &str = "sys/module/kvm/parameters/nx_huge_pages";
const MULTIHIT: &str = "sys/devices/system/cpu/vulnerabilities/itlb_multihit";

#[test]
fn creating_vms_is_fast_with_cheap_cgroup_moves_or_a_recent_kernel() {
    let verdict =
        |release, files: &[(&str, &str)]| host::huge_page_recovery(root(files).path(), release).verdict;
    let setting = (NX_HUGE_PAGES, "Y\n");
    assert_eq!(verdict("6.1.0-30-amd64", &[("proc/self/mountinfo", UNIFIED), setting]), Verdict::Warn);
    assert_eq!(verdict("6.1.0-30-amd64", &[("proc/self/mountinfo", DYNAMIC), setting]), Verdict::Ok);
    assert_eq!(verdict("6.12.117", &[("proc/self/mountinfo", UNIFIED), setting]), Verdict::Ok);
    assert_eq!(verdict("6.1.0", &[("proc/self/mountinfo", UNIFIED)]), Verdict::Ok);
}

#[test]
fn turning_a_mitigation_off_is_never_advised_and_warned_about_where_it_matters() {
    for setting in ["Y\n", "N\n", "never\n"] {
        for processor in ["Not affected\n", "KVM: Mitigation: Split huge pages\n", "KVM: Vulnerable\n"] {
            for release in ["6.1.0", "6.18.0"] {
                let files =
                    [("proc/self/mountinfo", UNIFIED), (NX_HUGE_PAGES, setting), (MULTIHIT, processor)];
                let finding = host::huge_page_recovery(root(&files).path(), release);
                let what = format!("{setting}{processor}{release}: {finding:?}");
                let hint = finding.hint.unwrap_or_default();
                assert!(!hint.contains("=never") && !hint.contains("=N"), "{what}");
                let open = setting != "Y\n" && processor.starts_with("KVM");
                assert_eq!(finding.detail.contains("CVE-2018-12207"), open, "{what}");
                assert!(!open || finding.verdict == Verdict::Warn, "{what}");
            }
        }
    }
}

#[test]
fn a_report_is_one_json_document_of_findings() {
    let findings = vec![Finding::ok("KVM", "runs"), Finding::fail("VMM", "no", "install it")];
    let report = serde_json::to_value(Report::new(findings)).unwrap();
    assert_eq!(
        report,
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "failed": 1,
            "findings": [
                { "subject": "KVM", "verdict": "ok", "detail": "runs", "hint": null },
                { "subject": "VMM", "verdict": "fail", "detail": "no", "hint": "install it" },
            ],
        })
    );
}

#[test]
fn few_groups_or_none_for_changes_of_files_are_told() {
    let (groups, marks) = ("proc/sys/fs/fanotify/max_user_groups", "proc/sys/fs/fanotify/max_user_marks");
    let found = |files: &[(&str, &str)], wanted| host::file_watches(root(files).path(), wanted);
    let usual = found(&[(groups, "128\n"), (marks, "205039\n")], true);
    assert_eq!(usual.verdict, Verdict::Ok);
    assert!(usual.detail.contains("128 microVMs with 205039 directories"), "{usual:?}");
    assert_eq!(found(&[(groups, "16\n"), (marks, "205039\n")], true).verdict, Verdict::Warn);
    assert_eq!(found(&[], true).verdict, Verdict::Warn);
    assert_eq!(found(&[], false).verdict, Verdict::Ok);
}

#[test]
fn memory_must_hold_one_microvm() {
    let meminfo = root(&[("proc/meminfo", "MemTotal:  4000000 kB\nMemAvailable:    1048576 kB\n")]);
    assert_eq!(host::memory(meminfo.path(), 512).verdict, Verdict::Ok);
    assert_eq!(host::memory(meminfo.path(), 1025).verdict, Verdict::Warn);
    assert_eq!(host::memory(root(&[]).path(), 512).verdict, Verdict::Warn);
}

#[test]
fn who_moves_the_frames_of_the_network_is_said() {
    let (with, without) = (root(&[("dev/vhost-net", "")]), root(&[]));
    assert!(host::network(with.path(), true).detail.contains("by the host kernel"));
    assert!(host::network(without.path(), true).detail.contains("by the VMM: there is no /dev/vhost-net"));
    assert!(host::network(with.path(), false).detail.contains("by the VMM: the configuration"));
}

#[test]
fn port_forward_is_looked_at_where_it_is_wanted() {
    let off = host::port_forward(true, false);
    assert_eq!((off.verdict, off.hint), (Verdict::Ok, None));
    assert!(off.detail.contains("port_forward = false"));
    // Without privileges nothing is known of it, and nothing is wrong with the host.
    assert_eq!(host::port_forward(false, true).verdict, Verdict::Ok);
}

#[test]
fn a_bad_configuration_fails_and_the_host_is_looked_at_all_the_same() {
    let mut findings = Vec::new();
    let error = crate::config::Config::load(Some(Path::new("/nonexistent"))).unwrap_err();
    examine(Err(error), |finding| findings.push(finding));
    assert!(findings.len() > 3);
    let last = findings.last().unwrap();
    assert_eq!((last.subject, last.verdict), ("configuration", Verdict::Fail));
    assert!(last.detail.contains("/nonexistent"));
}
