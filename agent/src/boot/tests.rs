use super::*;

#[test]
fn every_controller_that_is_there_is_enabled() {
    assert_eq!(subtree_control("cpu memory pids\n"), "+cpu +memory +pids");
    assert_eq!(subtree_control(""), "");
}

#[test]
fn each_mount_comes_after_the_one_it_lies_on() {
    for (index, upper) in MOUNTS.iter().enumerate() {
        let later = &MOUNTS[index + 1..];
        let below = later.iter().find(|lower| upper.path.starts_with(&format!("{}/", lower.path)));
        assert!(below.is_none(), "{} is mounted before {}", upper.path, below.unwrap().path);
    }
}
