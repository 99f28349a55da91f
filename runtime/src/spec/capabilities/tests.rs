use super::*;

#[test]
fn numbers_are_those_of_the_kernel() {
    let known = [("CAP_CHOWN", 0), ("CAP_NET_BIND_SERVICE", 10), ("CAP_SYS_ADMIN", 21), ("CAP_SETFCAP", 31)];
    for (name, number) in known.into_iter().chain([("CAP_AUDIT_READ", 37), ("CAP_CHECKPOINT_RESTORE", 40)]) {
        assert_eq!(bit(name), Some(1 << number), "{name}");
    }
}

#[test]
fn names_come_back_and_are_distinct() {
    let mut seen = 0_u64;
    for name in names() {
        seen |= bit(&name).unwrap();
    }
    assert_eq!(seen, (1 << 41) - 1);
}

#[test]
fn prefix_and_case_are_free() {
    assert_eq!(bit("net_admin"), bit("CAP_NET_ADMIN"));
    assert_eq!(bit("cap_net_admin"), bit("CAP_NET_ADMIN"));
}

#[test]
fn an_unknown_name_is_a_warning_that_names_its_set() {
    let raw =
        raw::Capabilities { ambient: vec!["CAP_FUTURE".into(), "CAP_KILL".into()], ..Default::default() };
    let mut warnings = Vec::new();
    let sets = parse(&raw, &mut warnings).unwrap();
    assert_eq!(sets, Capabilities { ambient: 1 << 5, ..Default::default() });
    assert_eq!(warnings, ["process.capabilities.ambient: \"CAP_FUTURE\" is not known and is left out"]);
}

#[test]
fn sets_that_contradict_each_other_are_refused_by_name() {
    let (none, kill): (Vec<String>, Vec<String>) = (vec![], vec!["CAP_KILL".into()]);
    let refusal = |[bounding, effective, inheritable, permitted]: [&Vec<String>; 4]| {
        let raw = raw::Capabilities {
            bounding: bounding.clone(),
            effective: effective.clone(),
            inheritable: inheritable.clone(),
            permitted: permitted.clone(),
            // Left out in the guest where it cannot be raised.
            ambient: kill.clone(),
        };
        parse(&raw, &mut Vec::new()).err().map(|error| error.to_string())
    };
    let effective = "process.capabilities.effective: CAP_KILL is not in permitted";
    assert_eq!(refusal([&kill, &kill, &none, &none]).as_deref(), Some(effective));
    let inheritable = "process.capabilities.inheritable: CAP_KILL is not in bounding";
    assert_eq!(refusal([&none, &kill, &kill, &kill]).as_deref(), Some(inheritable));
    // Permitted may go beyond the bounding set: an exec ends that.
    assert_eq!(refusal([&none, &kill, &none, &kill]), None);
    assert_eq!(refusal([&kill, &none, &kill, &none]), None);
}
