use std::{collections::BTreeMap, fs};

use super::*;
use crate::{
    cli::CgroupManager,
    log::{Format, Log, LogOptions},
    spec::Hooks,
    store::{Process, Record, SandboxDir, SandboxRecord, StateDir, names, write_atomically},
};

#[test]
fn a_stranger_whose_record_is_broken_keeps_nobody_from_being_deleted() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("log");
    let log = Log::open(LogOptions { path: Some(path.clone()), format: Format::Text, debug: false }).unwrap();
    let root = base.path().join("root");
    let context = Context { root: root.clone(), log, cgroup_manager: CgroupManager::Disabled, config: None };

    // Its processes are long gone.
    let gone = Process { pid: u32::MAX >> 1, start_ticks: 1 };
    let record = Record {
        oci_version: "1.3.0".into(),
        id: "web".into(),
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        created: "2026-11-22T14:57:28Z".into(),
        annotations: BTreeMap::new(),
        hooks: Hooks::default(),
        owner: "root".into(),
        proxy: Some(gone),
        sandbox: "pod".parse().unwrap(),
        disks: false,
    };
    let sandbox = SandboxDir::claim(&root, &record.sandbox).unwrap();
    let hosted = SandboxRecord { server: gone, host_container: Some("web".parse().unwrap()) };
    write_atomically(&sandbox.join(names::SANDBOX), &serde_json::to_vec(&hosted).unwrap()).unwrap();
    drop(sandbox);
    for (name, json) in [("web", serde_json::to_vec(&record).unwrap()), ("stranger", b"{".to_vec())] {
        let dir = StateDir::claim(&root, &name.parse().unwrap()).unwrap();
        write_atomically(&dir.join(names::STATE), &json).unwrap();
    }

    Args { force: false, id: "web".into() }.run(&context).unwrap();
    assert_eq!(StateDir::list(&root).unwrap(), ["stranger".parse().unwrap()]);
    // Its sandbox went with it.
    assert!(SandboxDir::open(&root, &"pod".parse().unwrap()).unwrap().is_none());
    let warned = fs::read_to_string(path).unwrap();
    assert!(warned.contains("stranger/state.json"), "{warned}");
}
