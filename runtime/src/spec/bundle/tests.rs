use std::os::unix::fs::symlink;

use serde_json::json;

use super::super::fixture::bundle;
use super::*;
use bulkhead_sys::chain;

fn refusal_of(config: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    chain(&load(dir.path(), &"web".parse().unwrap(), &Policy::default(), None).unwrap_err())
}

#[test]
fn what_bulkhead_spec_writes_is_accepted_without_a_warning() {
    let spec = bundle();
    let loaded = spec.load().unwrap();
    assert_eq!(loaded.json, spec.json());
    assert_eq!(loaded.dir, fs::canonicalize(spec.dir()).unwrap());
    assert_eq!(loaded.host.rootfs, loaded.dir.join("rootfs"));
    assert_eq!(loaded.host.warnings, Vec::<String>::new());
    assert!(loaded.host.terminal && loaded.host.rootfs_readonly && loaded.guest.rootfs.readonly);
    assert_eq!(loaded.guest.rootfs.source.as_str(), "web/rootfs");
    assert_eq!(loaded.guest.namespaces.len(), 6);
    assert_eq!(loaded.guest.masked_paths.len(), 12);
}

#[test]
fn a_missing_bundle_or_config_json_is_named_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), &"web".parse().unwrap(), &Policy::default(), None).unwrap_err();
    assert!(error.hint().unwrap().contains("bulkhead spec"));
    assert!(chain(&error).ends_with("/config.json: No such file or directory (os error 2)"));
    let error =
        load(Path::new("/nonexistent"), &"web".parse().unwrap(), &Policy::default(), None).unwrap_err();
    assert_eq!(chain(&error), "open bundle /nonexistent: No such file or directory (os error 2)");
}

#[test]
fn config_json_must_be_a_regular_file() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = load(dir.path(), &"web".parse().unwrap(), &Policy::default(), None).unwrap_err();
    assert!(error.to_string().ends_with("/config.json is not a regular file"));
}

#[test]
fn what_is_not_json_is_said_with_line_and_column() {
    assert_eq!(refusal_of(b"{,}"), "config.json is not JSON: key must be a string at line 1 column 2");
    assert!(refusal_of(b"").starts_with("config.json is not JSON: EOF"));
    assert!(refusal_of(b"{} {}").starts_with("config.json is not JSON: trailing characters"));
    assert!(refusal_of(b"{\"hostname\": \"\xff\"}").starts_with("config.json is not JSON: invalid unicode"));
    assert!(refusal_of(b"[]").starts_with("config.json: invalid type: sequence, expected an object"));
}

#[test]
fn deep_json_is_refused_and_not_followed() {
    let deep = format!("{{\"linux\": {{\"intelRdt\": {}", "[".repeat(100_000));
    assert!(refusal_of(deep.as_bytes()).starts_with("config.json is not JSON: recursion limit"));
    // An unknown property is skipped, however deep.
    let unknown = format!("{{\"unknown\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(refusal_of(unknown.as_bytes()), "ociVersion is missing");
}

#[test]
fn a_file_beyond_the_limit_is_not_read() {
    let mut config = vec![b' '; usize::try_from(limits::CONFIG_JSON).unwrap()];
    config.push(b' ');
    assert!(refusal_of(&config).ends_with("/config.json is larger than 16777216 bytes"));
}

#[test]
fn more_than_the_agent_takes_is_refused_here() {
    let env: Vec<String> = (0..1000).map(|n| format!("V{n}={}", "x".repeat(4000))).collect();
    let refusal = bundle().set("process.env", json!(env)).refusal();
    assert!(
        refusal.starts_with("config.json: ")
            && refusal.ends_with(" bytes for the guest are more than 3145728")
    );
}

#[test]
fn very_long_lists_are_taken_or_refused_but_not_chewed_on() {
    let mount = |n| json!({"destination": format!("/m/{n}"), "type": "tmpfs", "source": "tmpfs"});
    let mounts: Vec<_> = (0..10_000).map(mount).collect();
    assert_eq!(bundle().set("mounts", json!(mounts)).refusal(), "mounts: 10000 are more than 512");
    assert_eq!(bundle().set("mounts", json!(mounts[..512])).guest().mounts.len(), 512);
    let device = |n| json!({"path": format!("/dev/d{n}"), "type": "c", "major": 1, "minor": 3});
    let devices: Vec<_> = (0..40_000).map(device).collect();
    assert!(
        bundle()
            .set("linux.devices", json!(devices))
            .refusal()
            .contains(" bytes for the guest are more than ")
    );
}

#[test]
fn a_wrong_type_is_named_by_its_path() {
    let refusal = bundle().set("process.args", json!(["a", 5])).refusal();
    assert!(
        refusal.starts_with("process.args[1]: invalid type: integer `5`, expected a string"),
        "{refusal}"
    );
    let refusal = bundle().set("linux.resources.memory.limit", json!("1G")).refusal();
    assert!(refusal.starts_with("linux.resources.memory.limit: invalid type: string \"1G\""), "{refusal}");
    let refusal = bundle().set("root", json!("rootfs")).refusal();
    assert!(refusal.starts_with("root: invalid type: string \"rootfs\", expected an object"), "{refusal}");
    let refusal = bundle().set("process.user", json!([1, 2])).refusal();
    assert!(refusal.starts_with("process.user: invalid type: sequence, expected an object"), "{refusal}");
    let refusal = bundle().set("mounts", json!([[1, 2]])).refusal();
    assert!(refusal.starts_with("mounts[0]: invalid type: sequence, expected an object"), "{refusal}");
}

#[test]
fn unknown_properties_are_ignored_anywhere() {
    let spec =
        bundle().set("novelty", json!({"a": [1]})).set("process.novelty", json!(1)).set("windows", json!({}));
    spec.set("linux.resources.memory.novelty", json!("x")).load().unwrap();
}

#[test]
fn null_means_absent() {
    let names = ["mounts", "hooks", "annotations", "hostname", "vm", "linux.devices", "linux.sysctl"];
    let more =
        ["linux.seccomp", "linux.resources", "linux.maskedPaths", "process.rlimits", "process.capabilities"];
    for name in names.into_iter().chain(more) {
        bundle().set(name, json!(null)).load().unwrap();
    }
}

#[test]
fn versions_of_major_1_are_accepted() {
    for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.1+build", "1.0.0-rc5"] {
        assert_eq!(bundle().set("ociVersion", json!(version)).load().unwrap().host.oci_version, version);
    }
    let refusal = |version: &str| bundle().set("ociVersion", json!(version)).refusal();
    assert_eq!(refusal("2.0.0"), "ociVersion: 2.0.0 is not supported: 1.0.0 to 1.3.0 are");
    assert_eq!(refusal("0.9.0"), "ociVersion: 0.9.0 is not supported: 1.0.0 to 1.3.0 are");
    for version in ["", "1", "1.0", "1.0.x", "one", "1.0.0.0"] {
        assert!(refusal(version).ends_with("is not a version (major.minor.patch)"), "{version}");
    }
    assert_eq!(bundle().remove("ociVersion").refusal(), "ociVersion is missing");
}

#[test]
fn a_rootfs_must_be_a_directory() {
    let spec = bundle().set("root.path", json!("gone"));
    let error = spec.load().unwrap_err();
    assert!(error.hint().is_some());
    let chain = chain(&error);
    assert!(
        chain.starts_with("root.path: /") && chain.ends_with("/gone: No such file or directory (os error 2)")
    );
    let refusal = bundle().set("root.path", json!("config.json")).refusal();
    assert!(refusal.starts_with("root.path: /") && refusal.ends_with("/config.json is not a directory"));
    assert_eq!(bundle().set("root.path", json!("")).refusal(), "root.path is missing");
    assert_eq!(bundle().remove("root").refusal(), "root is missing");
}

#[test]
fn a_rootfs_may_be_absolute_or_a_symlink() {
    let other = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(other.path()).unwrap();
    let absolute = bundle().set("root.path", json!(other.path()));
    assert_eq!(absolute.load().unwrap().host.rootfs, real);
    let linked = bundle().set("root.path", json!("link"));
    symlink(other.path(), linked.dir().join("link")).unwrap();
    assert_eq!(linked.load().unwrap().host.rootfs, real);
}

#[test]
fn root_readonly_is_off_unless_given() {
    let loaded = bundle().set("root", json!({"path": "rootfs"})).load().unwrap();
    assert!(!loaded.host.rootfs_readonly && !loaded.guest.rootfs.readonly);
}

#[test]
fn names_of_the_system_need_a_uts_namespace_and_fit_into_it() {
    let guest = bundle().set("hostname", json!("h")).set("domainname", json!("d.example")).guest();
    assert_eq!((guest.hostname.as_deref(), guest.domainname.as_deref()), (Some("h"), Some("d.example")));
    assert_eq!(bundle().set("hostname", json!("")).guest().hostname, None);
    for field in ["hostname", "domainname"] {
        let refusal = bundle().set(field, json!("x".repeat(65))).refusal();
        assert_eq!(refusal, format!("{field}: 65 bytes are more than 64"));
        let without =
            bundle().remove("hostname").set("linux.namespaces", json!([{"type":"mount"},{"type":"network"}]));
        let refusal = without.set(field, json!("x")).refusal();
        assert_eq!(refusal, format!("{field}: there is no namespace of type uts to set it in"));
    }
}

#[test]
fn annotations_are_kept_and_must_have_names() {
    let loaded = bundle().set("annotations", json!({"org.example.a": "1"})).load().unwrap();
    assert_eq!(loaded.host.annotations["org.example.a"], "1");
    assert_eq!(bundle().set("annotations", json!({"": "1"})).refusal(), "annotations: a key is empty");
    let refusal = bundle().set("annotations", json!({"a": 1})).refusal();
    assert!(refusal.starts_with("annotations.a: invalid type: integer `1`"), "{refusal}");
}

#[test]
fn paths_to_hide_must_be_absolute() {
    let guest =
        bundle().set("linux.maskedPaths", json!(["/a"])).set("linux.readonlyPaths", json!(["/b"])).guest();
    assert_eq!((guest.masked_paths, guest.readonly_paths), (vec!["/a".to_owned()], vec!["/b".to_owned()]));
    for field in ["linux.maskedPaths", "linux.readonlyPaths"] {
        let refusal = bundle().set(field, json!(["/a", "b"])).refusal();
        assert_eq!(refusal, format!("{field}[1]: \"b\" is not an absolute path"));
    }
}

#[test]
fn propagation_of_the_rootfs_is_one_of_eight_words() {
    for (word, mode) in [("private", PropagationMode::Private), ("shared", PropagationMode::Shared)] {
        let of = |word: &str| bundle().set("linux.rootfsPropagation", json!(word)).guest().rootfs.propagation;
        assert_eq!(of(word), Some(Propagation { mode, recursive: false }));
        assert_eq!(of(&format!("r{word}")), Some(Propagation { mode, recursive: true }));
    }
    assert_eq!(bundle().set("linux.rootfsPropagation", json!("")).guest().rootfs.propagation, None);
    let refusal = bundle().set("linux.rootfsPropagation", json!("public")).refusal();
    assert!(refusal.starts_with("linux.rootfsPropagation: \"public\" is not one of private, "));
}

#[test]
fn the_cgroups_path_is_kept_as_it_is_written_and_cannot_climb() {
    for path in ["/a/b", "a/b", "system.slice:bulkhead:web"] {
        let loaded = bundle().set("linux.cgroupsPath", json!(path)).load().unwrap();
        assert_eq!(loaded.host.cgroups_path.as_deref(), Some(path));
    }
    assert_eq!(bundle().set("linux.cgroupsPath", json!("")).load().unwrap().host.cgroups_path, None);
    let refusal = bundle().set("linux.cgroupsPath", json!("/a/../../b")).refusal();
    assert_eq!(refusal, "linux.cgroupsPath: \"/a/../../b\" has a `..`");
}

#[test]
fn what_only_a_host_has_is_refused_with_the_reason() {
    let refusal = bundle().set("linux.intelRdt", json!({"closID": "x"})).refusal();
    assert!(refusal.starts_with("linux.intelRdt is not supported: "), "{refusal}");
    bundle().set("linux.intelRdt", json!({})).load().unwrap();
}

#[test]
fn a_spec_without_linux_wants_the_hosts_network_and_is_refused() {
    let refusal = bundle().remove("linux").refusal();
    assert!(refusal.starts_with("linux.namespaces is not supported: without a namespace of type network"));
}

#[test]
fn a_label_for_mounts_is_a_warning() {
    assert_eq!(bundle().set("linux.mountLabel", json!("x")).warnings().len(), 1);
}
