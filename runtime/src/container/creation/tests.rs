use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use super::*;
use crate::store::StateError;
use crate::{
    spec::Hooks,
    store::{Role, Stage, StateDir},
};

pub(crate) fn request(id: &str, caller: Process) -> CreationRequest {
    let record = Record {
        oci_version: "1.3.0".into(),
        id: id.into(),
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        created: "2026-11-27T14:57:28Z".into(),
        annotations: BTreeMap::new(),
        owner: "root".into(),
        hooks: Hooks::default(),
        sandbox: "pod".parse().unwrap(),
        disks: false,
        proxy: None,
    };
    CreationRequest { record, config: "{}".into(), cgroup: None, caller }
}

fn claim(root: &Path) -> Creation {
    Creation::claim(root, request("web", Process::current().unwrap()), false).unwrap()
}

fn dir(root: &Path) -> Result<StateDir, StateError> {
    StateDir::open(root, &"web".parse().unwrap())
}

#[test]
fn until_it_is_complete_others_see_that_it_is_being_created() {
    let root = tempfile::tempdir().unwrap();
    let creation = claim(root.path());
    let found = dir(root.path()).unwrap();
    assert_eq!((found.stage(), found.creating().unwrap().unwrap().bundle), (Stage::Creating, "/b".into()));
    assert!(matches!(found.record(), Err(StateError::Creating { .. })));
    assert!(found.try_lock().unwrap().is_none());

    let proxy = Process::current().unwrap();
    creation.write_record(Some(proxy)).unwrap();
    creation.complete();
    let found = dir(root.path()).unwrap();
    assert_eq!((found.stage(), found.record().unwrap().proxy), (Stage::Created, Some(proxy)));
    assert_eq!(fs::read(found.join(names::CONFIG)).unwrap(), b"{}");
    assert!(found.creating().unwrap().is_none());
    // A program that another test starts has a copy of the lock until its exec.
    let end = Instant::now() + Duration::from_secs(60);
    while dir(root.path()).unwrap().try_lock().unwrap().is_none() {
        assert!(Instant::now() < end, "it is locked");
        std::thread::yield_now();
    }
}

#[test]
fn one_that_is_dropped_leaves_nothing_and_kills_what_its_journal_names() {
    let root = tempfile::tempdir().unwrap();
    let creation = claim(root.path());
    let mut proxy = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let process = Process::of(proxy.id()).unwrap();
    creation.dir.journal().append(&Entry::Process { role: Role::Proxy, process }).unwrap();
    drop(creation);
    assert!(matches!(dir(root.path()), Err(StateError::Missing { .. })));
    assert!(!process.is_alive());
    proxy.wait().unwrap();
}

#[test]
fn an_id_is_claimed_once() {
    let root = tempfile::tempdir().unwrap();
    let _creation = claim(root.path());
    let again = Creation::claim(root.path(), request("web", Process::current().unwrap()), false);
    assert!(again.unwrap_err().to_string().contains("container with id exists"));
}

#[test]
fn a_request_arrives_as_it_was_written() {
    let mut file = tempfile::tempfile().unwrap();
    let sent = request("web", Process::current().unwrap());
    std::io::Write::write_all(&mut file, &serde_json::to_vec(&sent).unwrap()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    assert_eq!(CreationRequest::read(&file).unwrap(), sent);
    assert!(CreationRequest::read(&file).is_err(), "an empty file");
}
