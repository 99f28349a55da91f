//! What an operator installs a node with.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use bulkhead_tests::host::{DEADLINE, TestHost, finish, stage};

/// `deploy/node.sh ACTION` for a prefix and a configuration of this test's own.
fn node(host: &TestHost, action: &str, prefix: &Path) -> bulkhead_tests::host::Finished {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/node.sh");
    let mut node = Command::new(script);
    node.arg(action).arg("--from").arg(stage()).arg("--prefix").arg(prefix);
    node.arg("--config").arg(host.dir().join("containerd.toml"));
    finish(&mut node, b"", DEADLINE)
}

#[test]
fn the_node_script_installs_once_and_takes_all_away() {
    let host = TestHost::new();
    let (prefix, config) = (host.dir().join("prefix"), host.dir().join("containerd.toml"));
    let before = "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause:1\"\n";
    fs::write(&config, before).unwrap();
    let told = node(&host, "install", &prefix).success();
    assert!(told.contains("restart containerd"), "{told}");
    let installed = fs::read_to_string(&config).unwrap();
    assert!(installed.starts_with(before), "{installed}");
    let parsed: toml::Table = installed.parse().unwrap();
    let cri = &parsed["plugins"]["io.containerd.grpc.v1.cri"];
    assert_eq!(cri["sandbox_image"].as_str(), Some("pause:1"));
    let runtime = |name: &str| cri["containerd"]["runtimes"][name]["runtime_type"].as_str();
    assert_eq!(runtime("bulkhead"), Some("io.containerd.bulkhead.v2"));
    // Without a table of its default runtime, beside one of another, the CRI plugin does not load.
    assert_eq!(runtime("runc"), Some("io.containerd.runc.v2"));

    // A second time changes nothing.
    let told = node(&host, "install", &prefix).success();
    assert!(!told.contains("restart containerd"), "{told}");
    assert_eq!(fs::read_to_string(&config).unwrap(), installed);

    // What is installed runs, and is not taken away under it.
    let bundle = host.bundle().args(["sleep", "1000"]);
    let id = host.id("installed");
    let bulkhead = |args: &[&str]| {
        let mut command = Command::new(prefix.join("bin/bulkhead"));
        command.arg("--root").arg(host.root()).args(args).arg(&id);
        // What is created keeps the streams.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{args:?}");
    };
    bulkhead(&["create", "--bundle", &bundle.write().to_string_lossy()]);
    // Also when the program was installed over meanwhile.
    let (vmm, new) = (prefix.join("libexec/bulkhead/bulkhead-vmm"), host.dir().join("new"));
    fs::copy(&vmm, &new).unwrap();
    fs::rename(&new, &vmm).unwrap();
    let refused = node(&host, "uninstall", &prefix);
    refused.exited(1);
    assert!(refused.errors().contains("microVMs run"), "{refused:?}");
    bulkhead(&["delete", "--force"]);

    node(&host, "uninstall", &prefix).success();
    assert_eq!(fs::read_to_string(&config).unwrap(), before);
    let left =
        finish(Command::new("find").arg(&prefix).args(["-not", "-type", "d"]), b"", DEADLINE).success();
    assert_eq!(left, "");
    // Nor is it an error.
    node(&host, "uninstall", &prefix).success();
}

#[test]
fn the_node_script_leaves_the_runtimes_of_a_configuration_as_they_are() {
    let host = TestHost::new();
    let config = host.dir().join("containerd.toml");
    let before = "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.other]\nruntime_type = \"x\"\n";
    fs::write(&config, before).unwrap();
    node(&host, "install", &host.dir().join("prefix")).success();
    let parsed: toml::Table = fs::read_to_string(&config).unwrap().parse().unwrap();
    let runtimes = &parsed["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"];
    assert_eq!(runtimes["other"]["runtime_type"].as_str(), Some("x"));
    assert_eq!(runtimes.as_table().unwrap().len(), 2, "{runtimes}");
}

#[test]
fn the_node_script_changes_nothing_when_the_configuration_is_not_its_own() {
    let host = TestHost::new();
    let config = host.dir().join("containerd.toml");
    let own = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.bulkhead]\nruntime_type = \"x\"\n";
    for text in [own, "version = 9\n"] {
        fs::write(&config, text).unwrap();
        let refused = node(&host, "install", &host.dir().join("prefix"));
        refused.exited(1);
        assert!(refused.errors().contains("containerd.toml"), "{refused:?}");
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
        let left: Vec<_> =
            fs::read_dir(host.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
    }
}
