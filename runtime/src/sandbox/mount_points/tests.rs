use std::{fs, os::unix::fs::symlink};

use bulkhead_protocol::container::SharePath;

use super::*;

fn mount(destination: &str, source: MountSource) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source,
        set: 0,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        super_flags: Vec::new(),
        data: Vec::new(),
        propagation: None,
        copy_up: false,
        id_map: None,
    }
}

fn proc(destination: &str) -> Mount {
    mount(destination, MountSource::Filesystem { kind: "proc".to_owned(), source: "proc".to_owned() })
}

#[test]
fn missing_directories_and_files_are_made_but_not_below_other_mounts() {
    let dir = tempfile::tempdir().unwrap();
    let path = SharePath::try_from("web/mounts/0".to_owned()).unwrap();
    let export = Export {
        source: "/etc/hosts".into(),
        share: path.clone(),
        kind: ExportKind::File,
        read_only: true,
        read_only_recursive: false,
        recursive: false,
        shared_memory: false,
        id_map: None,
    };
    let mut mounts = [
        proc("/proc"),
        proc("/dev"),
        proc("/dev/pts"),
        mount("/etc/deep/hosts", MountSource::Export { name: path }),
    ];
    make(dir.path(), &mut mounts, &[export]).unwrap();
    assert!(dir.path().join("proc").is_dir());
    assert!(dir.path().join("dev").is_dir());
    assert!(!dir.path().join("dev/pts").exists());
    assert!(dir.path().join("etc/deep/hosts").is_file());
}

#[test]
fn a_symlink_out_of_the_rootfs_leads_back_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let (rootfs, outside) = (dir.path().join("rootfs"), dir.path().join("outside"));
    fs::create_dir_all(rootfs.join("run")).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink(&outside, rootfs.join("link")).unwrap();
    symlink("/run", rootfs.join("var")).unwrap();
    make(&rootfs, &mut [proc("/link/new")], &[]).unwrap();
    assert!(!outside.join("new").exists());
    assert!(rootfs.join(outside.strip_prefix("/").unwrap()).join("new").is_dir());
    make(&rootfs, &mut [proc("/var/lock")], &[]).unwrap();
    assert!(rootfs.join("run/lock").is_dir());
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere_else() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let dir = tempfile::tempdir().unwrap();
    let (rootfs, target) = (dir.path().join("rootfs"), dir.path().join("target"));
    fs::create_dir_all(rootfs.join("a")).unwrap();
    fs::create_dir(&target).unwrap();
    symlink("../../../target", rootfs.join("b")).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let swap = std::thread::spawn({
        let (a, b) = (rootfs.join("a"), rootfs.join("b"));
        move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    for number in 0..500 {
        // Inside, or an error.
        let _ = make(&rootfs, &mut [proc(&format!("/a/d{number}/e"))], &[]);
    }
    drop(stop);
    swap.join().unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn a_tmpfs_takes_the_mode_of_a_directory_of_the_image_only() {
    let tmpfs = |destination: &str, data: &[&str]| {
        let source = MountSource::Filesystem { kind: "tmpfs".to_owned(), source: "tmpfs".to_owned() };
        Mount { data: data.iter().map(|option| (*option).to_owned()).collect(), ..mount(destination, source) }
    };
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("there")).unwrap();
    let mut mounts =
        [tmpfs("/there", &[]), tmpfs("/missing/deep", &["size=1m"]), tmpfs("/given", &["mode=700"])];
    make(dir.path(), &mut mounts, &[]).unwrap();
    assert_eq!(mounts[0].data, Vec::<String>::new());
    assert_eq!(mounts[1].data, ["size=1m", "mode=1777"]);
    assert_eq!(mounts[2].data, ["mode=700"]);
}

#[test]
fn a_missing_working_directory_is_made_but_not_below_a_mount() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/srv/app", dir.path().join("app")).unwrap();
    let mounts = [proc("/data")];
    for path in ["/app/run", "/data/run", "/"] {
        make_working_directory(dir.path(), path, &mounts).unwrap();
    }
    assert!(dir.path().join("srv/app/run").is_dir());
    assert!(!dir.path().join("data").exists());
    fs::write(dir.path().join("file"), "").unwrap();
    let error = make_working_directory(dir.path(), "/file/x", &mounts).unwrap_err();
    assert_eq!(
        bulkhead_sys::chain(&error),
        "make working directory /file/x in the rootfs: Not a directory (os error 20)"
    );
}
