use std::fs;

use super::*;
use crate::store::Role;

fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

#[test]
fn what_a_cut_off_creation_left_is_undone_by_the_next_one() {
    let root = tempfile::tempdir().unwrap();
    let web = claim(root.path(), &id("web")).unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let process = Process::of(child.id()).unwrap();
    web.journal().append(&Entry::Process { role: Role::Server, process }).unwrap();
    fs::create_dir_all(web.join("share/web/rootfs")).unwrap();
    drop(web);

    let again = claim(root.path(), &id("web")).unwrap();
    assert!(again.journal().entries().unwrap().is_empty());
    assert!(!again.join("share").exists());
    assert!(!process.is_alive());
    child.wait().unwrap();
}

#[test]
fn of_many_that_claim_one_id_at_once_exactly_one_gets_it() {
    let root = tempfile::tempdir().unwrap();
    let claims: Vec<_> = std::thread::scope(|scope| {
        let claim = || claim(root.path(), &id("web"));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "{claims:?}");
}

#[test]
fn a_container_that_is_being_made_or_was_made_keeps_its_id() {
    let root = tempfile::tempdir().unwrap();
    let taken = || match claim(root.path(), &id("web")) {
        Err(UndoError::State(StateError::Exists { .. })) => true,
        other => panic!("{other:?}"),
    };
    let web = claim(root.path(), &id("web")).unwrap();
    assert!(taken());
    fs::write(web.join(crate::store::names::STATE), "{}").unwrap();
    drop(web);
    assert!(taken());
}

#[test]
fn the_process_that_undoes_is_spared() {
    let root = tempfile::tempdir().unwrap();
    let web = claim(root.path(), &id("web")).unwrap();
    web.journal().append_self(Role::Server).unwrap();
    everything(&web).unwrap();
    assert!(!web.path().exists());
}
