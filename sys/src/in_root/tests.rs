use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::symlink},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;

/// A root with `etc` and `usr`, and a directory around it that must stay as it is.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(TempDir::new().unwrap());
        for name in ["etc", "usr", "var"] {
            fs::create_dir_all(tree.root().join(name)).unwrap();
        }
        tree
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn link(&self, target: &str, path: &str) {
        symlink(target, self.root().join(path)).unwrap();
    }

    fn make(&self, path: &str, missing: Missing) -> Result<(PathBuf, bool)> {
        let root = fs::File::open(self.root()).unwrap();
        let place = make(|path, flags| open(&root, path, flags), path, missing)?;
        let path = fs::read_link(format!("/proc/self/fd/{}", place.fd.as_raw_fd())).unwrap();
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 1, "something was made outside");
        Ok((path.strip_prefix(self.root()).unwrap().to_owned(), place.made))
    }

    fn made(&self, path: &str, missing: Missing) -> PathBuf {
        let (path, made) = self.make(path, missing).unwrap();
        assert!(made);
        path
    }
}

const FILE: Missing = Missing::File(0o644);

#[test]
fn what_a_link_to_nothing_names_is_made() {
    let tree = Tree::new();
    tree.link("/usr/share/zone/Nowhere", "etc/localtime");
    tree.link("../run/systemd/resolve/stub.conf", "etc/resolv.conf");
    assert_eq!(tree.made("/etc/localtime", FILE), Path::new("usr/share/zone/Nowhere"));
    assert!(tree.root().join("usr/share/zone/Nowhere").is_file());
    assert_eq!(tree.made("/etc/resolv.conf", FILE), Path::new("run/systemd/resolve/stub.conf"));
    // What is there now is found, and the links are as they were.
    assert_eq!(tree.make("/etc/localtime", FILE).unwrap(), ("usr/share/zone/Nowhere".into(), false));
    assert!(tree.root().join("etc/resolv.conf").is_symlink());
}

#[test]
fn a_link_to_nothing_on_the_way_is_a_directory_and_so_are_links_to_links() {
    let tree = Tree::new();
    tree.link("/run", "var/run");
    assert_eq!(tree.made("/var/run/app", Missing::Directory), Path::new("run/app"));
    tree.link("two", "one");
    tree.link("/three/four", "two");
    assert_eq!(tree.made("/one/x", FILE), Path::new("three/four/x"));
    assert!(tree.root().join("three/four").is_dir());
}

#[test]
fn links_out_of_the_root_stay_inside() {
    let tree = Tree::new();
    tree.link("../../../../up", "etc/up");
    tree.link("/../../out/of/it", "etc/out");
    assert_eq!(tree.made("/etc/up", Missing::Directory), Path::new("up"));
    assert_eq!(tree.made("/etc/out", FILE), Path::new("out/of/it"));
    assert_eq!(tree.made("/../../etc/../x", FILE), Path::new("x"));
}

#[test]
fn links_without_an_end_are_an_error() {
    let tree = Tree::new();
    tree.link("b", "a");
    tree.link("a", "b");
    tree.link("/self/deeper", "self");
    assert_eq!(tree.make("/a", FILE).unwrap_err(), Errno::LOOP);
    assert_eq!(tree.make("/a/x", Missing::Directory).unwrap_err(), Errno::LOOP);
    assert_eq!(tree.make("/self", FILE).unwrap_err(), Errno::LOOP);
}

#[test]
fn slashes_and_dots_mean_nothing_and_two_dots_take_back_what_is_missing() {
    let tree = Tree::new();
    assert_eq!(tree.made("//srv//data/./x/", Missing::Directory), Path::new("srv/data/x"));
    assert_eq!(tree.made("/no/such/../../etc/./file", FILE), Path::new("etc/file"));
    assert!(!tree.root().join("no").exists());
    assert_eq!(tree.make("/no/..", Missing::Directory).unwrap(), (PathBuf::new(), false));
}

#[test]
fn a_file_on_the_way_is_an_error() {
    let tree = Tree::new();
    fs::write(tree.root().join("file"), "").unwrap();
    tree.link("/file/x", "etc/link");
    assert_eq!(tree.make("/file/x", FILE).unwrap_err(), Errno::NOTDIR);
    assert_eq!(tree.make("/etc/link", FILE).unwrap_err(), Errno::NOTDIR);
    assert_eq!(tree.make("/file", Missing::Directory).unwrap_err(), Errno::NOTDIR);
}
