use std::os::unix::fs::PermissionsExt as _;

use super::{
    super::{Verdict, tests::root},
    *,
};

fn alice() -> User {
    User { uid: 4242, name: "alice".to_owned() }
}

#[test]
fn a_user_is_named_as_in_passwd() {
    let root = root(&[("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:4242:4242::/:/bin/sh\n")]);
    assert_eq!(User::find(root.path(), 4242).name, "alice");
    assert_eq!(User::find(root.path(), 7).name, "7");
}

#[test]
fn ranges_of_ids_take_two_programs_and_two_files() {
    let mappers = [("usr/bin/newuidmap", ""), ("usr/bin/newgidmap", "")];
    let found = |ranges: &[(&str, &str)]| ids(root(&[&mappers, ranges].concat()).path(), &alice());
    let [by_name, by_number] = ["alice:100000:65536\n", "bob:1:1\n4242:100000:65536\n"];
    assert_eq!(found(&[("etc/subuid", by_name), ("etc/subgid", by_number)]).verdict, Verdict::Ok);
    let other = found(&[("etc/subuid", by_name), ("etc/subgid", "bob:100000:65536\n")]);
    assert!(other.verdict == Verdict::Warn && other.detail.contains("/etc/subgid"), "{other:?}");
    let none = ids(root(&[mappers[0]]).path(), &alice());
    assert!(none.verdict == Verdict::Warn && none.detail.contains("/usr/bin/newgidmap"), "{none:?}");
}

#[test]
fn what_keeps_a_user_from_kvm_is_said() {
    assert_eq!(device(root(&[("dev/kvm", "")]).path()).verdict, Verdict::Ok);
    let missing = device(root(&[]).path());
    assert!(missing.verdict == Verdict::Fail && missing.hint.unwrap().contains("firmware"), "{missing:?}");
    let locked = root(&[("dev/kvm", ""), ("etc/group", "")]);
    fs::set_permissions(locked.path().join("dev/kvm"), fs::Permissions::from_mode(0o000)).unwrap();
    let gid = fs::metadata(locked.path().join("dev/kvm")).unwrap().gid();
    fs::write(locked.path().join("etc/group"), format!("kvm:x:{gid}:\n")).unwrap();
    assert!(who_may(locked.path(), KVM).contains("group kvm (mode 0000)"));
    // Root may all the same.
    let found = device(locked.path());
    assert!(rustix::process::geteuid().is_root() || found.hint.unwrap().contains("--groups kvm"));
}

#[test]
fn a_cgroup_of_the_user_has_its_controllers() {
    let group = "sys/fs/cgroup/user.slice/user-4242.slice/user@4242.service";
    let (procs, controllers) = (format!("{group}/cgroup.procs"), format!("{group}/cgroup.controllers"));
    let found = |given: &str| {
        let files =
            [(procs.as_str(), ""), (controllers.as_str(), given), ("run/user/4242/systemd/private", "")];
        delegation(root(&files).path(), &alice())
    };
    assert_eq!(found("cpu memory pids\n").verdict, Verdict::Ok);
    let fewer = found("memory pids\n");
    assert!(fewer.verdict == Verdict::Warn && fewer.detail.ends_with("without cpu"), "{fewer:?}");
    assert!(delegation(root(&[]).path(), &alice()).detail.contains("delegated none"));
}
