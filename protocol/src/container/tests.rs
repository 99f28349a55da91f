use super::*;

#[test]
fn a_share_path_cannot_leave_the_share() {
    for good in ["web/rootfs", "web/mounts/0", "a"] {
        assert_eq!(SharePath::try_from(good.to_owned()).unwrap().as_str(), good);
    }
    for bad in ["", "/etc", "a/../b", "..", "a//b", "a/", "./a", "a\0b"] {
        assert!(SharePath::try_from(bad.to_owned()).is_err(), "{bad:?}");
    }
}

#[test]
fn limits_are_told_apart_from_absent_ones() {
    let resources = Resources {
        memory_max: Some(Limit::Value(1 << 20)),
        pids_max: Some(Limit::Max),
        ..Resources::default()
    };
    let json = serde_json::to_string(&resources).unwrap();
    assert_eq!(serde_json::from_str::<Resources>(&json).unwrap(), resources);
}
