use super::*;

fn namespaces(kinds: &[&str]) -> Vec<raw::Namespace> {
    kinds.iter().map(|kind| raw::Namespace { kind: (*kind).to_owned(), path: None }).collect()
}

fn refusal(raw: &[raw::Namespace]) -> String {
    parse(raw).unwrap_err().to_string()
}

#[test]
fn every_supported_kind_becomes_a_fresh_namespace_in_order() {
    let kinds = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];
    let list = parse(&namespaces(&kinds)).unwrap();
    assert!(list.0.iter().all(|namespace| namespace.place == NamespacePlace::New));
    assert_eq!(list.0.len(), kinds.len());
    assert_eq!(list.0[0].kind, NamespaceKind::Pid);
    assert_eq!(list.0[5].kind, NamespaceKind::User);
}

#[test]
fn a_kind_given_twice_is_refused() {
    let raw = namespaces(&["mount", "network", "pid", "pid"]);
    assert_eq!(refusal(&raw), "linux.namespaces[3]: pid is given twice");
}

#[test]
fn an_unknown_kind_is_refused_with_the_known_ones() {
    assert!(
        refusal(&namespaces(&["net"]))
            .starts_with("linux.namespaces[0].type: \"net\" is not one of cgroup, ")
    );
}

#[test]
fn clock_offsets_are_taken_with_a_time_namespace_and_refused_without() {
    let with = parse(&namespaces(&["mount", "network", "time"])).unwrap();
    let without = parse(&namespaces(&["mount", "network"])).unwrap();
    let raw = |clock: &str, secs, nanosecs| [(clock.to_owned(), raw::TimeOffset { secs, nanosecs })].into();
    let offsets = time_offsets(&raw("monotonic", -5, 999_999_999), &with).unwrap();
    let expected = TimeOffset { seconds: -5, nanoseconds: 999_999_999 };
    assert_eq!(offsets, TimeOffsets { monotonic: Some(expected), boottime: None });
    assert_eq!(time_offsets(&BTreeMap::new(), &without).unwrap(), TimeOffsets::default());
    let refusal = |raw, namespaces| time_offsets(&raw, namespaces).unwrap_err().to_string();
    assert_eq!(
        refusal(raw("boottime", 0, 0), &without),
        "linux.timeOffsets: there is no namespace of type time to set them in"
    );
    assert_eq!(
        refusal(raw("realtime", 0, 0), &with),
        "linux.timeOffsets: \"realtime\" is not one of boottime, monotonic"
    );
    assert_eq!(
        refusal(raw("boottime", 0, 1_000_000_000), &with),
        "linux.timeOffsets.boottime.nanosecs: 1000000000 is a second or more"
    );
}

#[test]
fn a_path_may_name_a_process_of_another_container_and_an_empty_one_is_none() {
    let joined = |kind: &str, path: &str| {
        let mut raw = namespaces(&["mount", "network"]);
        raw.push(raw::Namespace { kind: kind.to_owned(), path: Some(path.to_owned()) });
        joins(&raw).map_err(|error| error.to_string())
    };
    assert_eq!(joined("ipc", "").unwrap(), []);
    for (kind, path, namespace) in [
        ("ipc", "/proc/12/ns/ipc", NamespaceKind::Ipc),
        ("network", "/proc/12/ns/net", NamespaceKind::Network),
        ("pid", "/proc/12/ns/pid", NamespaceKind::Pid),
        ("uts", "/proc/12/ns/uts", NamespaceKind::Uts),
    ] {
        let join = Join { field: "linux.namespaces[2].path".into(), kind: namespace, pid: 12 };
        assert_eq!(joined(kind, path).unwrap(), [join]);
    }
    // Any other place of a network namespace is one of the host.
    assert_eq!(joined("network", "/run/netns/x").unwrap(), []);
    for path in ["/proc/12/ns/net", "/proc/+12/ns/ipc", "/proc/self/ns/ipc", "/proc/12/ns/ipc/", "/run/ipc"] {
        let refusal = joined("ipc", path).unwrap_err();
        assert!(refusal.ends_with("is not /proc/PID/ns/ipc of a container's process"), "{refusal}");
    }
    for kind in ["mount", "user", "cgroup", "time"] {
        let refusal = joined(kind, "/proc/12/ns/mnt").unwrap_err();
        assert!(refusal.starts_with("linux.namespaces[2].path is not supported: only "), "{refusal}");
    }
}

#[test]
fn a_network_namespace_is_named_by_an_absolute_path_that_nobody_has_opened() {
    let mut raw = namespaces(&["mount", "network"]);
    assert_eq!(network(&raw).unwrap(), None);
    raw[1].path = Some(String::new());
    assert_eq!(network(&raw).unwrap(), None);
    raw[1].path = Some("/run/netns/never-was".to_owned());
    let expected =
        NetworkPath { field: "linux.namespaces[1].path".to_owned(), path: "/run/netns/never-was".into() };
    assert_eq!(network(&raw).unwrap(), Some(expected));
    raw[1].path = Some("run/netns/x".to_owned());
    assert_eq!(
        network(&raw).unwrap_err().to_string(),
        "linux.namespaces[1].path: \"run/netns/x\" is not an absolute path"
    );
}

#[test]
fn without_a_network_namespace_the_hosts_network_is_refused_with_a_hint() {
    let error = parse(&namespaces(&["mount"])).unwrap_err();
    assert!(error.to_string().starts_with("linux.namespaces is not supported: "));
    assert!(error.hint().unwrap().contains("network"));
}

#[test]
fn without_a_mount_namespace_nothing_runs() {
    assert_eq!(refusal(&namespaces(&["network"])), "linux.namespaces: a namespace of type mount is required");
}

#[test]
fn mappings_and_a_user_namespace_need_each_other() {
    let with = parse(&namespaces(&["mount", "network", "user"])).unwrap();
    let without = parse(&namespaces(&["mount", "network"])).unwrap();
    let one = [raw::IdMapping { container: 0, host: 1000, size: 65536 }];
    let expected = IdMapping { container: 0, host: 1000, size: 65536 };
    assert_eq!(mappings(&one, "uidMappings", &with).unwrap(), [expected]);
    assert_eq!(mappings(&[], "uidMappings", &without).unwrap(), []);
    let text = |result: Result<_, SpecError>| result.unwrap_err().to_string();
    let refused = text(mappings(&one, "uidMappings", &without));
    assert_eq!(refused, "linux.uidMappings: there is no user namespace to map into");
    let refused = text(mappings(&[], "gidMappings", &with));
    assert_eq!(refused, "linux.gidMappings: a user namespace needs at least one mapping");
}

#[test]
fn a_mapping_must_have_a_size_and_end_within_the_ids() {
    let with = parse(&namespaces(&["mount", "network", "user"])).unwrap();
    let refusal = |container, host, size| {
        let one = [raw::IdMapping { container, host, size }];
        mappings(&one, "uidMappings", &with).unwrap_err().to_string()
    };
    assert_eq!(refusal(0, 0, 0), "linux.uidMappings[0]: size is 0");
    assert_eq!(refusal(1, 0, 1), "linux.uidMappings: no mapping begins at id 0 of the container");
    assert!(refusal(0, 1, u32::MAX).starts_with("linux.uidMappings[0]: goes beyond"));
    assert!(refusal(0, u32::MAX, 1).starts_with("linux.uidMappings[0]: goes beyond"));
    let all = [raw::IdMapping { container: 0, host: 0, size: u32::MAX }];
    assert_eq!(mappings(&all, "uidMappings", &with).unwrap().len(), 1);
}
