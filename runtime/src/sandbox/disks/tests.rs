use std::{fs, io::Write as _};

use bulkhead_protocol::container::{DiskFilesystem, Mount};

use rustix::fs::FlockOperation;

use super::{super::fake, *};
use crate::{sandbox::fake::FakeAgent, spec::DiskMount};

fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

fn image(sectors: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![0; 512 * sectors]).unwrap();
    file
}

fn of_file(image: &tempfile::NamedTempFile, read_only: bool) -> DiskMount {
    let name = SharePath::try_from("web/disks/0".to_owned()).unwrap();
    let source = image.path().canonicalize().unwrap();
    DiskMount { source, name, filesystem: DiskFilesystem::Ext4, read_only }
}

/// A process that another test starts has for a moment copies of all descriptors, and with them the locks.
fn until_free(image: &tempfile::NamedTempFile) {
    let file = fs::File::open(image.path()).unwrap();
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
}

/// A sandbox with a VMM and an agent that write down what they are asked.
struct Guest {
    vmm: Vmm,
    agent: Agent,
    fake: FakeAgent,
    disks: Disks,
}

impl Guest {
    fn new() -> Self {
        let fake = FakeAgent::default();
        let (vmm, _) = fake::vmm(fake::Guest::Works, fake.clone());
        Self { vmm, agent: fake.connect(), fake, disks: Disks::default() }
    }

    /// The mount of the container as the guest is told of it.
    async fn attach(&mut self, container: &str, disk: &DiskMount) -> Result<MountSource, DiskError> {
        let mut spec = fake::spec(&["sleep"]);
        spec.mounts = vec![mount_of(disk)];
        let found = look_for(std::slice::from_ref(disk), &spec)?;
        let guest = (&self.vmm, &self.agent);
        self.disks.attach(guest, &id(container), found, &mut spec).await?;
        Ok(spec.mounts.remove(0).source)
    }

    async fn release(&mut self, container: &str) {
        self.disks.release(&self.vmm, Some(&self.agent), &id(container)).await;
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.fake.machine().asked)
    }
}

fn mount_of(disk: &DiskMount) -> Mount {
    Mount {
        destination: "/data".into(),
        source: MountSource::Export { name: disk.name.clone() },
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

fn on_disk(slot: u8, read_only: bool) -> MountSource {
    let disk = Disk { slot: Slot(slot), filesystem: DiskFilesystem::Ext4, read_only };
    let volume = Volume { name: SharePath::of_disk(Slot(slot)), kind: VolumeKind::Disk(disk) };
    let attributes = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    MountSource::Bind { place: Place { volume, path: None, attributes }, submounts: vec![] }
}

#[tokio::test]
async fn a_disk_is_plugged_once_for_all_containers_and_goes_with_the_last() {
    let (mut guest, file) = (Guest::new(), image(8));
    let disk = of_file(&file, false);
    assert_eq!(guest.attach("web", &disk).await.unwrap(), on_disk(6, false));
    assert_eq!(guest.attach("log", &of_file(&file, true)).await.unwrap(), on_disk(6, false));
    assert_eq!(guest.asked(), ["plug 6", "bind 6"]);
    assert_eq!(guest.disks.users(), [id("log"), id("web")].into());
    guest.release("web").await;
    assert_eq!(guest.asked(), [""; 0]);
    guest.release("log").await;
    guest.release("log").await;
    assert_eq!(guest.asked(), ["unbind 6", "unplug 6"]);
    // Its slot is free, and so is the file.
    until_free(&file);
    assert_eq!(guest.attach("web", &disk).await.unwrap(), on_disk(6, false));
}

#[tokio::test]
async fn each_disk_has_a_slot_and_there_are_four() {
    let mut guest = Guest::new();
    let files: Vec<_> = (0..5).map(|_| image(1)).collect();
    for (slot, file) in (6..10).zip(&files) {
        assert_eq!(guest.attach("web", &of_file(file, true)).await.unwrap(), on_disk(slot, true));
    }
    let error = guest.attach("web", &of_file(&files[4], true)).await.unwrap_err();
    assert!(matches!(error, DiskError::TooMany { .. }), "{error}");
    guest.release("web").await;
    guest.attach("web", &of_file(&files[4], true)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_read_only_does_not_become_writable() {
    let (mut guest, file) = (Guest::new(), image(8));
    guest.attach("web", &of_file(&file, true)).await.unwrap();
    let error = guest.attach("log", &of_file(&file, false)).await.unwrap_err();
    assert!(matches!(error, DiskError::ReadOnly { .. }), "{error}");
    assert_eq!(guest.disks.users(), [id("web")].into());
}

#[tokio::test]
async fn a_disk_has_one_use() {
    let (mut guest, file) = (Guest::new(), image(8));
    guest.attach("web", &of_file(&file, true)).await.unwrap();
    let other = DiskMount { filesystem: DiskFilesystem::Erofs, ..of_file(&file, true) };
    let error = guest.attach("log", &other).await.unwrap_err().to_string();
    assert!(error.ends_with("another container of the pod has it mounted as ext4"), "{error}");
}

#[tokio::test]
async fn sandboxes_do_not_write_to_one_file_and_may_read_it() {
    let (mut guest, file) = (Guest::new(), image(8));
    let busy = |attached: Result<_, _>| {
        matches!(attached, Err::<MountSource, _>(DiskError::Open(OpenError::Busy { .. })))
    };
    // The fake VMM closes what it is given. Another sandbox's holds its lock as long as it has the disk.
    let other = fs::File::options().write(true).open(file.path()).unwrap();
    rustix::fs::flock(&other, FlockOperation::LockShared).unwrap();
    assert!(busy(guest.attach("web", &of_file(&file, false)).await));
    guest.attach("web", &of_file(&file, true)).await.unwrap();
    guest.release("web").await;
    rustix::fs::flock(&other, FlockOperation::LockExclusive).unwrap();
    assert!(busy(guest.attach("web", &of_file(&file, true)).await));
    rustix::fs::flock(&other, FlockOperation::Unlock).unwrap();
    guest.attach("web", &of_file(&file, false)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_disk_is_refused_before_anything_is_plugged() {
    let mut guest = Guest::new();
    let empty = tempfile::NamedTempFile::new().unwrap();
    empty.as_file().set_len(511).unwrap();
    let error = guest.attach("web", &of_file(&empty, true)).await.unwrap_err();
    assert!(matches!(error, DiskError::Open(OpenError::Empty { .. })), "{error}");
    let mut disk = of_file(&empty, true);
    disk.source = "/dev/null".into();
    let error = guest.attach("web", &disk).await.unwrap_err();
    assert!(matches!(error, DiskError::Open(OpenError::Kind { .. })), "{error}");
    disk.source = empty.path().with_extension("absent");
    let error = guest.attach("web", &disk).await.unwrap_err();
    assert!(matches!(error, DiskError::Open(OpenError::Open { .. })), "{error}");
    assert_eq!(guest.asked(), [""; 0]);
    assert!(guest.disks.users().is_empty());
}

#[tokio::test]
async fn a_disk_that_the_guest_does_not_take_is_taken_back() {
    let (mut guest, file) = (Guest::new(), image(8));
    guest.fake.machine().refuses_bind = true;
    let error = guest.attach("web", &of_file(&file, false)).await.unwrap_err();
    assert!(matches!(error, DiskError::Bind { .. }), "{error}");
    guest.release("web").await;
    assert_eq!(guest.asked(), ["plug 6", "bind 6", "unbind 6", "unplug 6"]);
}
