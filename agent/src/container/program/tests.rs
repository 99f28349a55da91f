use std::{fs::File, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;

fn rootfs() -> (TempDir, Root) {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    let fd = std::os::fd::OwnedFd::from(File::open(directory.path()).unwrap());
    (directory, Root::from(fd))
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn a_name_is_found_in_the_first_directory_that_can_run_it() {
    let directory = TempDir::new().unwrap();
    for (place, mode) in [("a", 0o644), ("b", 0o755), ("c", 0o755)] {
        fs::create_dir(directory.path().join(place)).unwrap();
        let file = directory.path().join(place).join("tool");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let base = directory.path().display();
    let found = look_up("tool", &format!("/absent:{base}/a:{base}/b:{base}/c")).unwrap();
    assert_eq!(found, format!("{base}/b/tool"));
}

#[test]
fn each_way_to_be_missing_has_the_words_that_callers_match() {
    let chain =
        |name: &str| Program::find(&strings(&[name]), &strings(&["PATH=/nowhere"])).unwrap_err().chain();
    assert_eq!(chain("foo"), r#"exec: "foo": executable file not found in $PATH"#);
    assert_eq!(chain(""), r#"exec: "": executable file not found in $PATH"#);
    assert_eq!(
        chain("/nowhere/foo"),
        r#"exec: "/nowhere/foo": stat /nowhere/foo: no such file or directory"#
    );
    assert_eq!(chain("/etc/passwd"), r#"exec: "/etc/passwd": permission denied"#);
    assert_eq!(chain("/etc"), r#"exec: "/etc": is a directory"#);
}

#[test]
fn home_comes_from_the_image_only_when_the_environment_has_none() {
    let (directory, root) = rootfs();
    fs::write(
        directory.path().join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nme:x:7:7:,,:/home/me:/bin/sh\n",
    )
    .unwrap();
    assert_eq!(environment(&strings(&["A=1"]), 7, &root), strings(&["A=1", "HOME=/home/me"]));
    assert_eq!(environment(&strings(&["HOME="]), 0, &root), strings(&["HOME=/root"]));
    assert_eq!(environment(&strings(&["HOME=/x"]), 7, &root), strings(&["HOME=/x"]));
    assert_eq!(environment(&[], 99, &root), strings(&["HOME=/"]));
}

#[test]
fn the_last_value_of_a_variable_counts() {
    let (_directory, root) = rootfs();
    let env = environment(&strings(&["A=1", "HOME=/", "A=2"]), 0, &root);
    assert_eq!(env, strings(&["HOME=/", "A=2"]));
}

#[test]
fn a_passwd_that_is_a_fifo_does_not_block() {
    let (directory, root) = rootfs();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, directory.path().join("etc/passwd"), fifo, mode, 0).unwrap();
    assert_eq!(environment(&[], 0, &root), strings(&["HOME=/"]));
}
