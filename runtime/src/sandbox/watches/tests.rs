use bulkhead_protocol::{
    agent::WatchedFile,
    container::{Mount, MountSource, Place, SharePath, Submount, Volume, VolumeKind},
    id::ContainerId,
    watch::{self, WatchPath},
};

use super::*;
use crate::sandbox::fake::{FakeAgent, PATIENCE};

fn path(path: &str) -> WatchPath {
    path.as_bytes().to_vec().try_into().unwrap()
}

fn mount(source: MountSource, destination: &str) -> Mount {
    Mount {
        source,
        destination: destination.to_owned(),
        set: 0,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        super_flags: vec![],
        data: vec![],
        propagation: None,
        copy_up: false,
        id_map: None,
    }
}

/// `share`: the name of a volume, then the path in it.
fn place(share: &str) -> Place {
    let path = |text: &str| SharePath::try_from(text.to_owned()).unwrap();
    let (name, below) =
        share.split_once('/').map_or((share, None), |(name, below)| (name, Some(path(below))));
    let volume = Volume { name: path(name), kind: VolumeKind::Share };
    Place { volume, path: below, attributes: 0 }
}

fn bind(share: &str) -> MountSource {
    MountSource::Bind { place: place(share), submounts: vec![] }
}

#[test]
fn a_volume_has_the_name_that_its_container_gives_it() {
    let web: ContainerId = "web".parse().unwrap();
    let mut volumes = Volumes::default();
    let proc = MountSource::Filesystem { kind: "proc".into(), source: "proc".into() };
    volumes.add(&web, &[mount(bind("@1"), "/data"), mount(proc, "/proc"), mount(bind("@1/sub"), "/sub")]);
    let below = SharePath::try_from("disk".to_owned()).unwrap();
    let below = vec![Submount { below, place: place("@2") }];
    let other = MountSource::Bind { place: place("@1"), submounts: below };
    volumes.add(&"db".parse().unwrap(), &[mount(other, "/other")]);
    assert_eq!(volumes.name_of(&path("@2/x")), "db:/other/disk/x");
    assert_eq!(volumes.name_of(&path("@1/sub/a\nb")), "web:/sub/a\\nb");
    assert_eq!(volumes.name_of(&path("@10/x")), "@10/x");
    assert!(volumes.remove(&web) && !volumes.remove(&web));
    assert_eq!(volumes.name_of(&path("@1/sub")), "db:/other/sub");
}

#[test]
fn too_many_watches_are_warned_of_by_name_and_once_until_there_are_fewer() {
    let mut volumes = Volumes::default();
    volumes.add(&"web".parse().unwrap(), &[mount(bind("@0"), "/data")]);
    let mut warned = Warned::default();
    let mut warn = |left_out| {
        let first_left_out = Some(path("@0/x"));
        let answer = Answer { left_out, first_left_out, ..Answer::default() };
        warned.of_too_many(&answer, &volumes)
    };
    let warning = "3 more than 1024 files and directories are watched in volumes, web:/data/x first: their watchers do \
                   not hear of changes made on the host";
    assert_eq!(warn(3).as_deref(), Some(warning));
    assert_eq!(warn(4), None);
    assert_eq!(warn(0), None);
    assert!(warn(1).is_some());
}

#[test]
fn a_filesystem_that_tells_nothing_is_warned_of_by_the_name_of_its_volume_once() {
    let mut volumes = Volumes::default();
    volumes.add(&"web".parse().unwrap(), &[mount(bind("a"), "/data"), mount(bind("b"), "/other")]);
    let mut warned = Warned::default();
    let mut warn = |at: &str| {
        let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        warned.of_mark(&MarkError { path: path(at), source }, &volumes)
    };
    let warning = "changes made on the host in web:/data/x do not reach watchers: mark a watched file: Operation not \
                   supported (os error 95)";
    assert_eq!(warn("a/x").as_deref(), Some(warning));
    assert_eq!(warn("a/y"), None);
    assert!(warn("b/y").is_some());
    assert_eq!(warn("web/rootfs/x"), None);
}

/// A process that is not this one, as a VMM is.
struct Other(std::process::Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_change_in_a_watched_volume_is_told_until_the_volume_is_gone() {
    if marks::tests::group().is_none() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir(share.path().join("a")).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(share.path().join("a")).unwrap());
    let vmm = Other(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
    let agent = FakeAgent::default();
    let events = watch::CREATE | watch::CLOSE_WRITE;
    agent.machine().watches = vec![WatchedFile { path: b"a".to_vec(), inode, events, ..Default::default() }];
    let web: ContainerId = "web".parse().unwrap();
    let volumes = tokio::sync::watch::Sender::new(Volumes::default());
    volumes.send_if_modified(|volumes| volumes.add(&web, &[mount(bind("a"), "/data")]));
    let root: OwnedFd = std::fs::File::open(share.path()).unwrap().into();
    let processes = Processes::of(vmm.0.id()).unwrap();
    let following = tokio::spawn(follow(agent.connect(), root, processes, volumes.subscribe()));

    let mut knocks = 0;
    let told = tokio::time::timeout(PATIENCE, async {
        while agent.machine().told.len() < 2 {
            knocks += 1;
            std::fs::write(share.path().join(format!("a/{knocks}")), "").unwrap();
            sleep(BATCH).await;
        }
    });
    told.await.expect("the guest is told of nothing");
    for event in &agent.machine().told {
        assert_eq!((event.path.as_slice(), event.cookie), (&b"a"[..], 0));
        assert!(event.mask == watch::CREATE || event.mask == watch::CLOSE_WRITE, "{event:?}");
    }

    volumes.send_if_modified(|volumes| volumes.remove(&web));
    drop(volumes);
    tokio::time::timeout(PATIENCE, following).await.expect("it does not end").unwrap();
}
