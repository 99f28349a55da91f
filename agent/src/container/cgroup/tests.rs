use super::*;

#[test]
fn the_count_of_kills_is_not_taken_from_a_longer_name() {
    assert_eq!(event("oom 9\noom_kill 3\noom_group_kill 7\n", "oom_kill"), 3);
    assert_eq!(event("oom_kill_x 3\n", "oom_kill"), 0);
}

#[test]
fn the_cgroup_of_a_process_counts_at_or_below_the_containers_own() {
    let web = Cgroup::of(Path::new("/sys/fs/cgroup"), &"web".parse().unwrap());
    assert_eq!(web.below("0::/bulkhead/web\n"), Some(""));
    assert_eq!(web.below("0::/bulkhead/web/init.scope\n"), Some("init.scope"));
    assert_eq!(web.below("1:name=other:/x\n0::/bulkhead/web/a/b\n"), Some("a/b"));
    for elsewhere in [
        "0::/\n",
        "0::/bulkhead\n",
        "0::/bulkhead/webs/a\n",
        "0::/other/web\n",
        "1:name=x:/bulkhead/web\n",
        "",
    ] {
        assert_eq!(web.below(elsewhere), None, "{elsewhere}");
    }
}

/// Directories in each other, more than a path can name.
fn deep(top: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    for _ in 0..700 {
        rustix::fs::mkdirat(&here, "beside", Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&here, "directory", Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, "directory", flags, Mode::empty()).unwrap();
    }
    here
}

#[test]
fn a_tree_of_any_depth_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("web");
    fs::create_dir(&top).unwrap();
    deep(&top);
    tree::remove(&top).unwrap();
    assert!(!top.exists());
    tree::remove(&top).unwrap();
}

#[test]
fn a_process_is_found_at_any_depth() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("web");
    fs::create_dir(&top).unwrap();
    let bottom = deep(&top);
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let file = rustix::fs::openat(&bottom, "cgroup.procs", flags, Mode::RUSR).unwrap();
    rustix::io::write(&file, b"0\n42\n").unwrap();
    assert_eq!(Cgroup { path: top.clone() }.processes().unwrap(), [42]);
    rustix::fs::unlinkat(&bottom, "cgroup.procs", rustix::fs::AtFlags::empty()).unwrap();
    // Or the directory could not be cleaned up.
    tree::remove(&top).unwrap();
}
