//! The program: who it is, where, with what, and how it ends.

use std::{fs, os::unix::fs::PermissionsExt};

use bulkhead_tests::differential::{Case, agree};
use serde_json::json;

#[test]
fn a_process_has_the_same_identity_directory_and_environment() {
    agree(&[
        Case::new("default", |bundle| bundle),
        Case::new("user", |bundle| bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }))),
        Case::new("user without an entry in passwd", |bundle| {
            bundle.set("/process/user", json!({ "uid": 4242, "gid": 4343 }))
        }),
        Case::new("groups and umask", |bundle| {
            bundle.set(
                "/process/user",
                json!({ "uid": 1000, "gid": 1000, "additionalGids": [9, 7, 70_000], "umask": 0o077 }),
            )
        }),
        Case::new("directory that the image lacks", |bundle| {
            bundle.set("/process/cwd", json!("/made/by/runtime"))
        }),
        Case::new("directory above a link", |bundle| {
            fs::create_dir_all(bundle.dir().join("rootfs/deep/down")).unwrap();
            std::os::unix::fs::symlink("deep/down", bundle.dir().join("rootfs/link")).unwrap();
            bundle.set("/process/cwd", json!("/link"))
        }),
        Case::new("environment", |bundle| {
            bundle.set(
                "/process/env",
                json!(["PATH=/bin", "HOME=/elsewhere", "A=b=c", "EMPTY=", "UTF=\u{fc}\u{4e2d}"]),
            )
        }),
        Case::new("a variable twice", |bundle| {
            bundle.set("/process/env", json!(["PATH=/bin", "TWICE=1", "TWICE=2"])).args(["env"])
        }),
        Case::new("program on the path", |bundle| {
            bundle.set("/process/env", json!(["PATH=/nowhere:/bin"])).args(["probe", "report"])
        }),
        Case::new("arguments", |bundle| bundle.args(["echo", "a b", "", "\u{fc}", "$HOME", "'\"\\"])),
    ]);
}

#[test]
fn a_process_ends_the_same_and_writes_the_same() {
    agree(&[
        Case::new("a child dies by a signal", |bundle| bundle.args(["probe", "die", "SIGSEGV"])).exits(139),
        Case::new("a megabyte", |bundle| bundle.args(["probe", "spew", "7", "1048576"])),
        Case::new("both outputs", |bundle| bundle.sh("echo out; echo err >&2; exit 3")).exits(3),
        Case::new("script", |bundle| {
            let script = bundle.dir().join("rootfs/bin/script");
            fs::write(&script, "#!/bin/sh -e\necho \"$0 $@\"\n").unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            bundle.args(["script", "a", "b"])
        }),
        Case::new("no such program", |bundle| bundle.args(["nosuch"])).refused("executable file not found"),
        Case::new("a file that is no program", |bundle| bundle.args(["/etc/passwd"]))
            .refused("permission denied"),
        Case::new("a directory that the user may not enter", |bundle| {
            let dir = bundle.dir().join("rootfs/closed");
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
            bundle
                .set("/process/cwd", json!("/closed"))
                .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        }),
    ]);
}

#[test]
fn limits_and_scores_of_a_process_are_the_same() {
    agree(&[
        Case::new("limits", |bundle| {
            let limit =
                |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
            bundle.set(
                "/process/rlimits",
                json!([
                    limit("RLIMIT_AS", 1 << 40, 1 << 41),
                    limit("RLIMIT_CORE", 0, 4096),
                    limit("RLIMIT_CPU", 100, 200),
                    limit("RLIMIT_DATA", 1 << 38, u64::MAX),
                    limit("RLIMIT_FSIZE", 1 << 30, 1 << 31),
                    limit("RLIMIT_LOCKS", 10, 11),
                    limit("RLIMIT_MEMLOCK", 65_536, 65_536),
                    limit("RLIMIT_MSGQUEUE", 1000, 2000),
                    limit("RLIMIT_NICE", 5, 10),
                    limit("RLIMIT_NOFILE", 100, 200),
                    limit("RLIMIT_NPROC", 50, 60),
                    limit("RLIMIT_RSS", 1 << 30, 1 << 30),
                    limit("RLIMIT_RTPRIO", 1, 2),
                    limit("RLIMIT_RTTIME", 1000, 2000),
                    limit("RLIMIT_SIGPENDING", 20, 30),
                    limit("RLIMIT_STACK", 4 << 20, 8 << 20)
                ]),
            )
        }),
        Case::new("oom score", |bundle| bundle.set("/process/oomScoreAdj", json!(500))),
        Case::new("personality", |bundle| bundle.set("/linux/personality", json!({ "domain": "LINUX32" }))),
    ]);
}
