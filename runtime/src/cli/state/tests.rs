use oci_spec::runtime::ContainerState;

use super::*;

fn state(status: &'static str) -> serde_json::Value {
    let state = State {
        oci_version: "1.3.0".into(),
        id: "web".into(),
        pid: 7,
        status,
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        created: "2026-11-22T14:57:28Z".into(),
        annotations: BTreeMap::from([("org.example".into(), "x".into())]),
        owner: "root".into(),
    };
    serde_json::to_value(state).unwrap()
}

/// The output is not made by oci-spec's type, which has no `paused`, no place for what callers of runc read, and no order of
/// the annotations. That type reads it.
#[test]
fn oci_spec_reads_the_state() {
    for (status, expected) in [
        ("creating", ContainerState::Creating),
        ("created", ContainerState::Created),
        ("running", ContainerState::Running),
        ("stopped", ContainerState::Stopped),
    ] {
        let read: oci_spec::runtime::State = serde_json::from_value(state(status)).unwrap();
        assert_eq!((read.version().as_str(), read.id().as_str()), ("1.3.0", "web"));
        assert_eq!((*read.status(), *read.pid()), (expected, Some(7)));
        assert_eq!(read.bundle().to_str(), Some("/b"));
        assert_eq!(read.annotations().as_ref().unwrap()["org.example"], "x");
    }
    serde_json::from_value::<oci_spec::runtime::State>(state("paused")).unwrap_err();
}
