use serde_json::json;

use super::*;
use crate::{
    spec::fixture::{Fixture, bundle},
    store::{names, write_atomically},
};

/// A root with containers whose process is this one: their names, and the sandboxes that they are in.
fn root(containers: &[(&str, Option<&str>)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (id, sandbox) in containers {
        let dir = StateDir::claim(root.path(), &id.parse().unwrap()).unwrap();
        let us = Process::current().unwrap();
        let record = json!({
            "ociVersion": "1.3.0", "id": id, "bundle": "/b", "rootfs": "/b/rootfs", "created": "", "owner": "",
            "annotations": {}, "proxy": us, "server": us, "sandbox": sandbox,
        });
        write_atomically(&dir.join(names::STATE), record.to_string().as_bytes()).unwrap();
    }
    root
}

/// A bundle with an ipc namespace of process `pid`.
fn joining(pid: u32) -> Fixture {
    let path = format!("/proc/{pid}/ns/ipc");
    bundle().set(
        "linux.namespaces",
        json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "ipc", "path": path}]),
    )
}

fn refusal(root: &tempfile::TempDir, fixture: &Fixture) -> String {
    resolve(root.path(), &mut fixture.load().unwrap()).unwrap_err().chain()
}

#[test]
fn a_bundle_without_paths_has_a_microvm_of_its_own() {
    let root = root(&[("first", None)]);
    assert!(resolve(root.path(), &mut bundle().load().unwrap()).unwrap().is_none());
}

#[test]
fn a_namespace_of_a_container_leads_to_its_microvm_and_the_others_stay_new() {
    let root = root(&[("first", None)]);
    let mut loaded = joining(std::process::id()).load().unwrap();
    let joined = resolve(root.path(), &mut loaded).unwrap().unwrap();
    assert_eq!(joined.sandbox.as_str(), "first");
    assert_eq!(loaded.guest.join.as_ref().map(ContainerId::as_str), Some("first"));
    let places: Vec<_> = loaded.guest.namespaces.iter().map(|namespace| namespace.place).collect();
    assert_eq!(places[..3], [NamespacePlace::New; 3]);
    assert_eq!(places[3], NamespacePlace::Joined);
}

#[test]
fn a_guest_leads_to_the_microvm_that_it_is_in_itself() {
    let root = root(&[("second", Some("first"))]);
    let mut loaded = joining(std::process::id()).load().unwrap();
    let joined = resolve(root.path(), &mut loaded).unwrap().unwrap();
    assert_eq!(joined.sandbox.as_str(), "first");
    assert_eq!(loaded.guest.join.as_ref().map(ContainerId::as_str), Some("second"));
}

#[test]
fn a_process_that_is_no_containers_is_refused() {
    let root = root(&[("first", None)]);
    assert_eq!(
        refusal(&root, &joining(1)),
        "linux.namespaces[3].path is not supported: process 1 stands for no container of ours"
    );
}
