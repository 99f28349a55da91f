use super::*;

fn path(cgroups_path: Option<&str>, systemd: bool) -> Result<String, CgroupError> {
    let tree = systemd.then_some(Tree::MACHINE);
    let path = resolve(cgroups_path, &"web".parse().unwrap(), tree.as_ref())?;
    Ok(path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned())
}

#[test]
fn without_a_path_each_container_has_its_own_cgroup() {
    assert_eq!(path(None, false).unwrap(), "bulkhead/web");
    assert_eq!(path(None, true).unwrap(), "system.slice/bulkhead-web.scope");
}

#[test]
fn absolute_and_relative_paths_lie_below_the_hierarchy() {
    assert_eq!(path(Some("/a/b"), false).unwrap(), "a/b");
    assert_eq!(path(Some("a/b"), false).unwrap(), "a/b");
}

#[test]
fn a_path_that_leaves_the_hierarchy_is_refused() {
    for bad in ["/..", "a/../../b", "/", "a/\0"] {
        assert!(path(Some(bad), false).is_err(), "{bad}");
    }
}

#[test]
fn a_systemd_path_expands_its_slice() {
    assert_eq!(
        path(Some("machine-a-b.slice:libpod:web"), true).unwrap(),
        "machine.slice/machine-a.slice/machine-a-b.slice/libpod-web.scope"
    );
    assert_eq!(path(Some(":crio:web"), true).unwrap(), "system.slice/crio-web.scope");
    assert_eq!(path(Some("-.slice::web"), true).unwrap(), "web.scope");
}

#[test]
fn the_systemd_of_a_user_has_its_slices_below_its_own_cgroup() {
    let tree = Tree { group: "user.slice/user-1.slice/user@1.service".to_owned(), slice: "user.slice" };
    for (given, below) in [
        (None, "user.slice/bulkhead-web.scope"),
        (Some("user.slice:libpod:web"), "user.slice/libpod-web.scope"),
        (Some("user-a.slice:libpod:web"), "user.slice/user-a.slice/libpod-web.scope"),
        (Some("-.slice::web"), "web.scope"),
    ] {
        let path = resolve(given, &"web".parse().unwrap(), Some(&tree)).unwrap();
        assert_eq!(path, Path::new(ROOT).join(&tree.group).join(below), "{given:?}");
    }
}

#[test]
fn a_systemd_path_of_another_form_is_refused() {
    for bad in [
        "/a/b",
        "a:b",
        "a.slice:b:c:d",
        "a:b:c",
        "a.slice:b:",
        "a.slice:x:c.slice",
        "a.slice:x/y:c",
        "a.slice:..:../..",
    ] {
        assert!(path(Some(bad), true).is_err(), "{bad}");
    }
}
