//! Privileges: capabilities, system call filters, masked and read-only paths.

use std::fs;

use bulkhead_tests::{
    differential::{Case, agree},
    host::Bundle,
};
use serde_json::{Value, json};

fn capable(bundle: Bundle, capabilities: Value) -> Bundle {
    bundle.set("/process/capabilities", capabilities)
}

/// A filter that lets all through but for some calls.
fn filtered(bundle: Bundle, rules: Value) -> Bundle {
    let profile = bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    profile.set("/linux/seccomp/syscalls", rules)
}

fn of_a_user(bundle: Bundle) -> Bundle {
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
}

#[test]
fn capabilities_are_the_same() {
    agree(&[
        Case::new("none given", |bundle| bundle.remove("/process", "capabilities")),
        Case::new("all five sets", |bundle| {
            let some = json!(["CAP_CHOWN", "CAP_KILL"]);
            capable(
                bundle,
                json!({
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"], "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_FOWNER"],
                    "effective": ["CAP_CHOWN"], "inheritable": some, "ambient": some
                }),
            )
        }),
        Case::new("of a user", of_a_user),
        Case::new("ambient of a user", |bundle| {
            let some = json!(["CAP_NET_BIND_SERVICE", "CAP_NET_RAW"]);
            let sets = json!({
                "bounding": some, "permitted": some, "effective": some, "inheritable": some, "ambient": some
            });
            capable(of_a_user(bundle), sets)
        }),
        Case::new("many", |bundle| {
            let many = json!([
                "CAP_SYS_ADMIN",
                "CAP_SYS_BOOT",
                "CAP_SYS_PTRACE",
                "CAP_DAC_READ_SEARCH",
                "CAP_BPF",
                "CAP_PERFMON",
                "CAP_CHECKPOINT_RESTORE"
            ]);
            capable(bundle, json!({ "bounding": many, "permitted": many, "effective": many }))
        }),
        Case::new("permitted beyond an unset bounding set", |bundle| {
            capable(of_a_user(bundle), json!({ "permitted": ["CAP_SYSLOG"], "effective": ["CAP_SYSLOG"] }))
        }),
        Case::new("ambient that is not inheritable", |bundle| {
            let some = json!(["CAP_KILL"]);
            capable(
                bundle,
                json!({ "bounding": some, "permitted": some, "effective": some, "ambient": some }),
            )
        }),
        Case::new("inheritable that is not permitted", |bundle| {
            let some = json!(["CAP_KILL"]);
            capable(bundle, json!({ "bounding": some, "inheritable": some }))
        }),
        Case::new("effective that is not permitted", |bundle| {
            capable(bundle, json!({ "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"] }))
        })
        .refused("process.capabilities.effective"),
        Case::new("inheritable beyond the bounding set", |bundle| {
            capable(bundle, json!({ "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"] }))
        })
        .refused("process.capabilities.inheritable"),
        Case::new("new privileges", |bundle| bundle.set("/process/noNewPrivileges", json!(false))),
    ]);
}

#[test]
fn filters_of_system_calls_are_the_same() {
    agree(&[
        Case::new("errno", |bundle| {
            filtered(
                bundle,
                json!([
                    { "names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
                    { "names": ["mount", "reboot"], "action": "SCMP_ACT_ERRNO" },
                    { "names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0 }
                ]),
            )
        }),
        Case::new("by an argument", |bundle| {
            filtered(
                bundle,
                json!([
                    { "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7,
                      "args": [{ "index": 1, "value": 4, "op": "SCMP_CMP_EQ" }] },
                    { "names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 8,
                      "args": [{ "index": 0, "value": 0x1000_0000, "valueTwo": 0x1000_0000, "op": "SCMP_CMP_MASKED_EQ" }] }
                ]),
            )
        }),
        Case::new("a name that nobody knows", |bundle| {
            filtered(bundle, json!([{ "names": ["no_such_call", "uname"], "action": "SCMP_ACT_ERRNO" }]))
        }),
        Case::new("of a user without new privileges", |bundle| {
            of_a_user(filtered(bundle, json!([{ "names": ["uname"], "action": "SCMP_ACT_ERRNO" }])))
        }),
        Case::new("an unknown action", |bundle| {
            filtered(bundle, json!([{ "names": ["uname"], "action": "SCMP_ACT_NOSUCH" }]))
        })
        .refused("SCMP_ACT_NOSUCH"),
    ]);
}

#[test]
fn masked_and_read_only_paths_are_the_same() {
    agree(&[
        Case::new("as engines do", |bundle| {
            bundle
                .set(
                    "/linux/maskedPaths",
                    json!([
                        "/proc/acpi",
                        "/proc/asound",
                        "/proc/kcore",
                        "/proc/keys",
                        "/proc/latency_stats",
                        "/proc/timer_list",
                        "/proc/timer_stats",
                        "/proc/sched_debug",
                        "/proc/scsi",
                        "/sys/firmware",
                        "/no/such/path"
                    ]),
                )
                .set(
                    "/linux/readonlyPaths",
                    json!([
                        "/proc/bus",
                        "/proc/fs",
                        "/proc/irq",
                        "/proc/sys",
                        "/proc/sysrq-trigger",
                        "/no/such/path"
                    ]),
                )
        }),
        Case::new("none", |bundle| {
            bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]))
        }),
        Case::new("of the rootfs", |bundle| {
            let rootfs = bundle.dir().join("rootfs");
            for file in ["secret", "fixed", "etc/hidden"] {
                fs::write(rootfs.join(file), "text\n").unwrap();
            }
            bundle
                .set("/linux/maskedPaths", json!(["/etc", "/secret"]))
                .set("/linux/readonlyPaths", json!(["/tmp", "/fixed"]))
                .sh("ls /etc; cat /secret /fixed; touch /tmp/x; touch /root/x; echo x > /fixed; ls /root; true")
        }),
    ]);
}
