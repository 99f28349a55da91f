use std::{collections::BTreeMap, os::unix::fs::symlink};

use super::*;

fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

fn finish(locked: &Locked) {
    let record = Record {
        oci_version: "1.3.0".into(),
        id: locked.id().to_string(),
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        created: "2026-11-22T14:57:28Z".into(),
        annotations: BTreeMap::new(),
        hooks: crate::spec::Hooks::default(),
        owner: "root".into(),
        proxy: Some(Process { pid: 1, start_ticks: 1 }),
        sandbox: "pod".parse().unwrap(),
        disks: false,
    };
    write_atomically(&locked.join(names::STATE), &serde_json::to_vec(&record).unwrap()).unwrap();
    assert_eq!(locked.record().unwrap(), record);
}

#[test]
fn a_file_is_written_whole_whatever_others_have_put_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "kept").unwrap();
    let path = directory.path().join("web.pid");
    // Who knows the process may foresee a name that is made of its number.
    let foreseen = directory.path().join(format!("web.pid.{}.tmp", std::process::id()));
    std::os::unix::fs::symlink(&secret, &foreseen).unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    write_atomically(&path, b"7").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"7");
    assert!(path.symlink_metadata().unwrap().is_file() && foreseen.is_symlink());
    assert_eq!(std::fs::read(&secret).unwrap(), b"kept");
    std::fs::create_dir(directory.path().join("taken")).unwrap();
    write_atomically(&directory.path().join("taken"), b"7").unwrap_err();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4, "a temporary file is left");
}

#[test]
fn an_id_that_is_being_created_or_was_created_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let web = StateDir::claim(root.path(), &id("web")).unwrap();
    assert!(matches!(StateDir::claim(root.path(), &id("web")), Err(StateError::Exists { .. })));
    finish(&web);
    drop(web);
    let error = StateDir::claim(root.path(), &id("web")).unwrap_err();
    assert!(error.to_string().contains("container with id exists"), "{error}");
    assert_eq!(StateDir::list(root.path()).unwrap(), [id("web")]);
}

#[test]
fn a_directory_that_a_creation_has_left_is_claimed_by_nobody() {
    let root = tempfile::tempdir().unwrap();
    drop(StateDir::claim(root.path(), &id("web")).unwrap());
    assert!(matches!(StateDir::claim(root.path(), &id("web")), Err(StateError::CutOff { .. })));
}

#[test]
fn a_container_that_is_not_there_does_not_exist() {
    let root = tempfile::tempdir().unwrap();
    let error = StateDir::open(root.path(), &id("web")).unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(StateDir::list(&root.path().join("none")).unwrap().is_empty());
}

#[test]
fn the_lock_of_a_directory_that_was_deleted_meanwhile_is_worth_nothing() {
    let root = tempfile::tempdir().unwrap();
    let first = StateDir::claim(root.path(), &id("web")).unwrap();
    let waiter = StateDir::open(root.path(), &id("web")).unwrap();
    let held = waiter.take_lock().unwrap();
    assert!(held.is_none());
    let late = fs::OpenOptions::new().write(true).open(waiter.join(names::LOCK)).unwrap();
    first.remove().unwrap();
    drop(first);
    let _second = StateDir::claim(root.path(), &id("web")).unwrap();
    assert!(matches!(waiter.locked_by(Flock::received(late)), Err(StateError::Missing { .. })));
}

#[test]
fn of_many_that_claim_one_id_at_once_no_two_get_it() {
    let root = tempfile::tempdir().unwrap();
    let claims: Vec<_> = std::thread::scope(|scope| {
        let claim = || StateDir::claim(root.path(), &id("web"));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // One that finds the directory of another before its lock takes it for cut off: `crate::undo::claim` tries again.
    assert!(claims.iter().filter(|claim| claim.is_ok()).count() <= 1, "{claims:?}");
}

#[test]
fn removing_a_state_directory_leaves_what_its_symlinks_point_to() {
    let root = tempfile::tempdir().unwrap();
    let victim = tempfile::tempdir().unwrap();
    fs::write(victim.path().join("data"), "x").unwrap();
    let web = StateDir::claim(root.path(), &id("web")).unwrap();
    fs::create_dir_all(web.join("share/a")).unwrap();
    symlink(victim.path(), web.join("share/a/link")).unwrap();
    web.remove().unwrap();
    assert!(!web.path().exists());
    assert!(victim.path().join("data").exists());
}

#[test]
fn sockets_work_where_the_path_is_longer_than_sun_path() {
    let root = tempfile::tempdir().unwrap();
    let long = "l".repeat(128);
    let web = StateDir::claim(root.path(), &id(&long)).unwrap();
    let listener = web.bind(names::SERVER_SOCKET).unwrap();
    web.connect(names::SERVER_SOCKET).unwrap();
    connect_path(&web.join(names::SERVER_SOCKET)).unwrap();
    drop(listener);
    assert_eq!(web.connect(names::SERVER_SOCKET).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_state_file_that_is_not_json_is_named() {
    let root = tempfile::tempdir().unwrap();
    let web = StateDir::claim(root.path(), &id("web")).unwrap();
    assert!(matches!(web.record(), Err(StateError::Creating { .. })));
    fs::write(web.join(names::STATE), "{").unwrap();
    let error = web.record().unwrap_err();
    assert!(error.to_string().contains("state.json"), "{error}");
}
