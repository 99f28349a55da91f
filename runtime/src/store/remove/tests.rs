use std::{fs, os::unix::fs::symlink, path::PathBuf};

use super::*;

#[test]
fn a_tree_of_any_depth_is_removed_and_links_out_of_it_are_not_followed() {
    let (outside, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("data"), "x").unwrap();
    let top = root.path().join("top");
    fs::create_dir(&top).unwrap();
    // A name that moving up would take.
    fs::create_dir_all(top.join(".removed-1/below")).unwrap();
    // Deeper than PATH_MAX reaches in one name, so it is made from within.
    let mut dir = rustix::fs::open(&top, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..500 {
        rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, &name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        rustix::fs::symlinkat(outside.path(), &dir, "link").unwrap();
    }
    symlink(outside.path(), top.join("link")).unwrap();
    tree(&top).unwrap();
    assert!(!top.exists());
    assert!(outside.path().join("data").exists());
    tree(&PathBuf::from("/nonexistent/directory")).unwrap();
}
