//! Bad input ends in one clear message, the right exit code, and nothing left behind.

use std::{fs, os::unix::fs::symlink, path::Path};

use bulkhead_tests::host::{DEADLINE, TestHost, finish, stage};
use serde_json::json;

/// `create` must fail with 1 and these words, and leave nothing.
fn refused(host: &TestHost, bundle: &Path, words: &[&str]) {
    for verb in ["create", "run"] {
        let id = host.id("bad");
        let errors = host.output([verb, "--bundle", bundle.to_str().unwrap(), &id]).failure(1, words);
        assert!(errors.lines().count() <= 3, "one message and a hint: {errors}");
        host.assert_no_trace_of(&id);
    }
}

#[test]
fn a_bundle_that_is_none_is_refused() {
    let host = TestHost::new();
    refused(&host, &host.dir().join("nowhere"), &["nowhere"]);
    let empty = host.dir().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&host, &empty, &["config.json", "No such file or directory"]);
    refused(&host, host.bundle().write_text("{ not json"), &["config.json"]);
    refused(
        &host,
        host.bundle().write_text(r#"{"ociVersion":"1.2.0","process":{"args":["a",7]}}"#),
        &["process.args"],
    );
}

#[test]
fn a_spec_with_bad_values_is_refused_by_the_path_of_the_field() {
    let host = TestHost::new();
    let namespaces =
        json!([{ "type": "mount" }, { "type": "pid" }, { "type": "network" }, { "type": "pid" }]);
    let limit = json!({ "type": "RLIMIT_CORE", "soft": 1, "hard": 2 });
    for (bundle, words) in [
        (host.bundle().set("/ociVersion", json!("2.0.0")), vec!["ociVersion", "2.0.0"]),
        (host.bundle().remove("/process", "args"), vec!["process.args"]),
        (host.bundle().args([""; 0]), vec!["process.args"]),
        (host.bundle().set("/process/cwd", json!("tmp")), vec!["process.cwd"]),
        (host.bundle().set("/root/path", json!("/no/such/rootfs")), vec!["/no/such/rootfs"]),
        (host.bundle().set("/root/path", json!("/etc/passwd")), vec!["/etc/passwd"]),
        (host.bundle().set("/linux/namespaces", namespaces), vec!["linux.namespaces", "pid"]),
        (
            host.bundle().set("/process/rlimits", json!([limit, limit])),
            vec!["process.rlimits", "RLIMIT_CORE"],
        ),
        (
            host.bundle().set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOTIFY" })),
            vec!["linux.seccomp"],
        ),
        (host.bundle().set("/process/terminal", json!("yes")), vec!["process.terminal"]),
    ] {
        refused(&host, bundle.write(), &words);
    }
}

#[test]
fn a_bad_id_is_refused() {
    let host = TestHost::new();
    let bundle = host.bundle();
    let dir = bundle.write().to_str().unwrap();
    for id in ["", "a/b", "..", &"x".repeat(300), "sp ace"] {
        host.output(["create", "--bundle", dir, id]).failure(1, &["id"]);
    }
    host.assert_no_trace();
}

#[test]
fn a_program_that_does_not_exist_fails_at_once() {
    let host = TestHost::new();
    refused(&host, host.bundle().args(["nosuch"]).write(), &["executable file not found in $PATH"]);
    refused(&host, host.bundle().args(["/no/such"]).write(), &["no such file or directory"]);
    refused(&host, host.bundle().args(["/etc/passwd"]).write(), &["permission denied"]);
}

#[test]
fn a_terminal_needs_a_console_socket_and_the_reverse() {
    let host = TestHost::new();
    let id = host.id("console");
    let terminal = host.bundle().set("/process/terminal", json!(true));
    let dir = terminal.write().to_str().unwrap();
    host.output(["create", "--bundle", dir, &id]).failure(1, &["console socket"]);
    let plain = host.bundle();
    let dir = plain.write().to_str().unwrap();
    host.output(["create", "--console-socket", "/nowhere.sock", "--bundle", dir, &id])
        .failure(1, &["console socket", "tty"]);
    host.assert_no_trace();
}

#[test]
fn a_socket_as_a_volume_is_refused_with_the_reason() {
    let host = TestHost::new();
    let path = host.dir().join("some.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mount =
        json!({ "destination": "/run/some.sock", "type": "bind", "source": path, "options": ["bind"] });
    refused(
        &host,
        host.bundle().push("/mounts", mount).write(),
        &["mounts[7]", "is a unix socket", "host_sockets"],
    );
}

/// An install prefix like the staged one, with one file replaced or missing.
fn broken_prefix(host: &TestHost, missing: &str) -> std::path::PathBuf {
    let prefix = host.dir().join(missing.replace('/', "-"));
    for file in [
        "bin/bulkhead",
        "libexec/bulkhead/bulkhead-vmm",
        "share/bulkhead/vmlinux",
        "share/bulkhead/initramfs.img",
    ] {
        let target = prefix.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if file == "bin/bulkhead" {
            fs::copy(stage().join(file), target).unwrap();
        } else if file != missing {
            symlink(fs::canonicalize(stage().join(file)).unwrap(), target).unwrap();
        }
    }
    prefix
}

#[test]
fn a_missing_kernel_image_or_vmm_is_named() {
    let host = TestHost::new();
    let bundle = host.bundle();
    for file in ["libexec/bulkhead/bulkhead-vmm", "share/bulkhead/vmlinux", "share/bulkhead/initramfs.img"] {
        let prefix = broken_prefix(&host, file);
        let mut command = std::process::Command::new(prefix.join("bin/bulkhead"));
        command
            .arg("--root")
            .arg(host.root())
            .args(["run", "--bundle"])
            .arg(bundle.write())
            .arg(host.id("no"));
        finish(&mut command, b"", DEADLINE).failure(1, &[file]);
        host.assert_no_trace();
    }
}

#[test]
fn a_kernel_that_is_none_and_too_little_memory_are_told() {
    let host = TestHost::new();
    let bundle = host.bundle();
    let garbage = host.dir().join("garbage");
    fs::write(&garbage, vec![0x5a; 65_536]).unwrap();
    for (config, word) in [
        (format!("kernel = {garbage:?}\n"), "kernel"),
        ("memory_mib = 1\n".to_owned(), "memory_mib"),
        ("memory_mib = 48\n".to_owned(), "memory"),
        ("no_such_key = 1\n".to_owned(), "no_such_key"),
    ] {
        let file = host.dir().join("config.toml");
        fs::write(&file, &config).unwrap();
        let id = host.id("conf");
        let mut command = host.bulkhead(["--config"]);
        command.arg(&file).args(["run", "--bundle"]).arg(bundle.write()).arg(&id);
        let finished = finish(&mut command, b"", DEADLINE);
        if config.contains("48") && finished.status.success() {
            continue; // A kernel that does boot in 48 MiB is no error.
        }
        finished.failure(1, &[word]);
        host.assert_no_trace_of(&id);
    }
}

#[test]
fn a_state_directory_that_is_read_only_or_full_is_told() {
    let host = TestHost::new();
    let bundle = host.bundle();
    let dir = bundle.write();
    for (options, word) in [("ro,size=1m", "read-only"), ("size=4k,nr_inodes=3", "no space left")] {
        let root = host.dir().join("small");
        fs::create_dir_all(&root).unwrap();
        let script = format!(
            "mount -t tmpfs -o {options} none {root} && exec {bulkhead} --root {root}/state run --bundle {dir} full",
            root = root.display(),
            bulkhead = stage().join("bin/bulkhead").display(),
            dir = dir.display()
        );
        let mut command = std::process::Command::new("unshare");
        let finished = finish(command.args(["--mount", "sh", "-c", &script]), b"", DEADLINE);
        let errors = finished.errors().to_lowercase();
        assert_eq!(finished.code(), 1, "{errors}");
        assert!(errors.contains(word), "{errors}");
    }
    host.assert_no_trace();
}

#[test]
fn a_machine_without_kvm_is_told() {
    let host = TestHost::new();
    let bundle = host.bundle();
    for (dev, word) in
        [("mknod /dev/null c 1 3", "/dev/kvm"), ("mknod /dev/null c 1 3 && touch /dev/kvm", "kvm")]
    {
        let script = format!(
            "mount -t tmpfs none /dev && {dev} && exec {bulkhead} --root {root} run --bundle {dir} {id}",
            bulkhead = stage().join("bin/bulkhead").display(),
            root = host.root().display(),
            dir = bundle.write().display(),
            id = host.id("kvm")
        );
        let mut command = std::process::Command::new("unshare");
        let errors = finish(command.args(["--mount", "sh", "-c", &script]), b"", DEADLINE)
            .failure(1, &["boot sandbox"]);
        assert!(errors.to_lowercase().contains(word), "{errors}");
        host.assert_no_trace();
    }
}

#[test]
fn what_is_very_large_is_refused_or_works() {
    let host = TestHost::new();
    let tmpfs = |number| json!({ "destination": format!("/tmp/{number}"), "type": "tmpfs" });
    let mounts: Vec<_> = (0..10_000).map(tmpfs).collect();
    refused(&host, host.bundle().set("/mounts", json!(mounts)).write(), &["mounts: 10000 are more than 512"]);
    let megabytes = "x".repeat(10 << 20);
    let args = json!(["echo", megabytes]);
    refused(&host, host.bundle().set("/process/args", args).write(), &["bytes for the guest are more than"]);
    let deep = format!(r#"{{"ociVersion":"1.2.0","mounts":{}"#, "[".repeat(1 << 20));
    refused(&host, host.bundle().write_text(&deep), &["mounts[0]: invalid type"]);
    let bundle = host.bundle();
    fs::create_dir_all(bundle.dir()).unwrap();
    fs::write(bundle.dir().join("config.json"), b"{\"hostname\": \"\xff\"}").unwrap();
    refused(&host, bundle.dir(), &["config.json is not JSON", "unicode"]);

    let mut env: Vec<_> = (0..5000).map(|number| format!("NAME_{number}=value {number}")).collect();
    env.push("PATH=/bin".to_owned());
    let text = host.run(&host.bundle().set("/process/env", json!(env))).success();
    let seen: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(seen["env"]["NAME_4999"], "value 4999");
    assert!(seen["env"].as_object().unwrap().len() >= 5001);
}
