use super::*;

fn options(list: &[&str]) -> Vec<String> {
    list.iter().map(|option| (*option).to_owned()).collect()
}

#[test]
fn flags_and_options_are_told_apart() {
    let overlay =
        told(&options(&["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b", "ro"])).unwrap();
    assert_eq!(overlay.flags, MsFlags::MS_RDONLY);
    assert_eq!(overlay.data, "index=off,workdir=/w,upperdir=/u,lowerdir=/a:/b");
    let bind = told(&options(&["rbind", "ro", "rw", "X-containerd.mkdir.path=/x"])).unwrap();
    assert_eq!(bind, Told { flags: MsFlags::MS_BIND | MsFlags::MS_REC, data: String::new() });
}

#[test]
fn what_would_be_ignored_is_refused() {
    for option in ["loop", "uidmap=0:1000:1", "gidmap=0:1000:1"] {
        assert!(matches!(told(&options(&[option])), Err(MountError::Option(named)) if named == option));
    }
}

#[test]
fn many_layers_are_named_from_their_own_directory() {
    let layers: Vec<_> = (0..100).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect();
    let data = format!("workdir=/var/lib/w,upperdir=/var/lib/u,lowerdir={}", layers.join(":"));
    let (directory, short) = shortened(&data).unwrap();
    assert_eq!(directory.unwrap(), Path::new("/var/lib/containerd/snapshots"));
    assert!(short.starts_with("workdir=/var/lib/w,upperdir=/var/lib/u,lowerdir=0/fs:1/fs:"), "{short}");
    let apart: Vec<_> = (0..300).map(|n| format!("/{n}/long/name/of/a/layer")).collect();
    assert!(matches!(shortened(&format!("lowerdir={}", apart.join(":"))), Err(MountError::Long(_))));
}

#[test]
fn too_many_mounts_are_refused_before_any_is_made() {
    let mounts = vec![Mount::default(); MOUNTS_MAX + 1];
    assert!(matches!(mount_all(&mounts, Path::new("/nowhere")), Err(MountError::Many(_))));
    assert!(mount_all(&[], Path::new("/nowhere")).is_ok());
    assert!(unmount_all(Path::new("/nowhere")).is_ok());
}
