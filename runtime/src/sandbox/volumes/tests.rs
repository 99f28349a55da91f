use bulkhead_protocol::container::{IdMapping, Memory, SocketFile};

use super::*;

/// A source of the filesystem 8:1 whose inode number is a sum of its path's bytes.
fn identity(path: &str) -> Identity {
    let inode = path.bytes().map(u64::from).sum();
    Identity { filesystem: (8, 1), object: (0x801, inode), path: Some(path.into()) }
}

fn wanted<'a>(identity: &'a Identity, writable: bool) -> Wanted<'a> {
    Wanted {
        identity,
        path: identity.path.as_deref().unwrap_or(Path::new("/")),
        directory: true,
        id_map: None,
        writable,
        kind: VolumeKind::Share,
    }
}

fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

fn share(path: &str) -> Option<SharePath> {
    Some(SharePath::try_from(path.to_owned()).unwrap())
}

#[test]
fn one_source_is_one_volume_until_its_last_user_leaves() {
    let mut volumes = Volumes::default();
    let data = identity("/data");
    let data = wanted(&data, true);
    assert_eq!(volumes.find(&data), []);
    let first = volumes.add(&data, &id("a"));
    let found = volumes.find(&data);
    assert_eq!(found, [Match { id: first, path: None, upgrade: false }]);
    volumes.join(&found[0], &id("b"));
    // A container that names it twice has it once.
    volumes.join(&found[0], &id("b"));
    assert_eq!(volumes.release(&id("a")), []);
    assert_eq!(volumes.release(&id("a")), []);
    let released = Released { id: first, directory: true, kind: VolumeKind::Share };
    assert_eq!(volumes.release(&id("b")), [released]);
    // The guest's kernel may remember the name.
    assert_ne!(volumes.add(&data, &id("a")).name(), first.name());
}

#[test]
fn names_are_no_containers_and_children_of_the_root() {
    let name = VolumeId(17).name();
    assert_eq!(name.as_str(), "@17");
    assert!(name.as_str().parse::<ContainerId>().is_err());
}

#[test]
fn a_source_inside_of_another_is_a_path_in_its_volume() {
    let mut volumes = Volumes::default();
    let [outer, inner, deep, other] = ["/data", "/data/sub", "/data/sub/deep/er", "/database"].map(identity);
    let wide = volumes.add(&wanted(&outer, true), &id("a"));
    for (source, path) in [(&inner, "sub"), (&deep, "sub/deep/er")] {
        for writable in [true, false] {
            let expected = Match { id: wide, path: share(path), upgrade: false };
            assert_eq!(volumes.find(&wanted(source, writable)), [expected]);
        }
    }
    assert_eq!(volumes.find(&wanted(&other, true)), []);
    assert_eq!(volumes.apart(&wanted(&other, true)), None);
}

#[test]
fn the_same_object_by_another_path_is_the_same_volume() {
    let mut volumes = Volumes::default();
    let data = identity("/data");
    let renamed = Identity { path: Some("/moved/here".into()), ..data.clone() };
    let unknown = Identity { path: None, ..data.clone() };
    let first = volumes.add(&wanted(&data, true), &id("a"));
    for identity in [&renamed, &unknown] {
        assert_eq!(volumes.find(&wanted(identity, true))[0].id, first);
    }
    let elsewhere = Identity { filesystem: (8, 2), ..data };
    assert_eq!(volumes.find(&wanted(&elsewhere, true)), []);
}

#[test]
fn another_object_at_the_same_path_is_another_volume() {
    let mut volumes = Volumes::default();
    let data = identity("/data");
    volumes.add(&wanted(&data, true), &id("a"));
    let replaced = Identity { object: (0x801, 1), ..data };
    assert_eq!(volumes.find(&wanted(&replaced, true)), []);
}

#[test]
fn a_wider_source_that_comes_later_is_apart() {
    let mut volumes = Volumes::default();
    let [outer, inner] = ["/data", "/data/sub"].map(identity);
    volumes.add(&wanted(&inner, true), &id("a"));
    assert_eq!(volumes.find(&wanted(&outer, true)), []);
    assert_eq!(volumes.apart(&wanted(&outer, true)), Some(Path::new("/data/sub")));
    let wide = volumes.add(&wanted(&outer, true), &id("b"));
    // What is in both is in the narrower one.
    let deep = identity("/data/sub/deep");
    let found: Vec<_> = volumes.find(&wanted(&deep, true)).into_iter().map(|found| found.path).collect();
    assert_eq!(found, [share("deep"), share("sub/deep")]);
    assert_eq!(volumes.find(&wanted(&outer, true))[0].id, wide);
}

#[test]
fn a_read_only_volume_becomes_writable_for_its_own_source_alone() {
    let mut volumes = Volumes::default();
    let [outer, inner] = ["/data", "/data/file"].map(identity);
    let wide = volumes.add(&wanted(&outer, false), &id("a"));
    assert_eq!(volumes.find(&wanted(&inner, true)), []);
    assert_eq!(volumes.apart(&wanted(&inner, true)), Some(Path::new("/data")));
    assert_eq!(volumes.find(&wanted(&inner, false))[0].path, share("file"));
    let found = volumes.find(&wanted(&outer, true));
    assert_eq!(found, [Match { id: wide, path: None, upgrade: true }]);
    volumes.join(&found[0], &id("b"));
    assert!(!volumes.find(&wanted(&outer, true))[0].upgrade);
    assert_eq!(volumes.find(&wanted(&inner, true))[0].id, wide);
}

#[test]
fn owners_that_are_seen_as_others_make_another_volume() {
    let mut volumes = Volumes::default();
    let map = |host| {
        let ids = vec![IdMapping { container: 0, host, size: 10 }];
        IdMap { uids: ids.clone(), gids: ids, recursive: false }
    };
    let (one, two) = (map(1000), map(2000));
    let recursive = IdMap { recursive: true, ..one.clone() };
    let data = identity("/data");
    let plain = wanted(&data, true);
    let mapped = |map| Wanted { id_map: Some(map), ..plain.clone() };
    volumes.add(&plain, &id("a"));
    assert_eq!(volumes.find(&mapped(&one)), []);
    let first = volumes.add(&mapped(&one), &id("a"));
    assert_eq!(volumes.find(&mapped(&recursive))[0].id, first);
    assert_eq!(volumes.find(&mapped(&two)), []);
}

#[test]
fn memory_of_the_guest_is_shared_by_its_source_and_has_nothing_inside() {
    let mut volumes = Volumes::default();
    let [shm, inner] = ["/", "/inner"].map(identity);
    let memory = VolumeKind::Memory(Memory { bytes: 1 << 20, mode: 0o1777, uid: 0, gid: 0 });
    let first = volumes.add(&Wanted { kind: memory, ..wanted(&shm, true) }, &id("a"));
    // Where it is mounted, and what it would be by itself, does not matter to the second one.
    assert_eq!(volumes.find(&wanted(&shm, true))[0].id, first);
    assert_eq!(volumes.volume(first).kind, memory);
    assert_eq!(volumes.find(&wanted(&inner, true)), []);
    assert_eq!(volumes.apart(&wanted(&inner, true)), None);
}

#[test]
fn a_socket_is_shared_by_its_source_and_is_never_a_path_in_a_directory() {
    let mut volumes = Volumes::default();
    let [run, api, other] = ["/run", "/run/api.sock", "/run/api"].map(identity);
    let kind = VolumeKind::Socket(SocketFile { mode: 0o660, uid: 0, gid: 0 });
    let socket = |identity| Wanted { kind, directory: false, ..wanted(identity, true) };
    volumes.add(&wanted(&run, true), &id("a"));
    assert_eq!((volumes.find(&socket(&api)), volumes.apart(&socket(&api))), (vec![], None));
    let first = volumes.add(&socket(&api), &id("a"));
    assert_eq!(volumes.find(&socket(&api)), [Match { id: first, path: None, upgrade: false }]);
    assert_eq!((volumes.find(&socket(&other)), volumes.apart(&wanted(&run, true))), (vec![], None));
    assert_eq!(volumes.volume(first).kind, kind);
}

#[test]
fn wider_sources_come_first() {
    let depths = ["/", "/data", "/data/sub/x"].map(|path| depth(&identity(path)));
    assert_eq!(depths, [0, 1, 3]);
    assert_eq!(depth(&Identity { path: None, ..identity("/data") }), 0);
}
