use super::*;

#[test]
fn the_state_has_the_fields_of_the_specification() {
    let state = HookState {
        oci_version: "1.3.0".into(),
        id: "web".into(),
        bundle: "/b".into(),
        annotations: [("k".to_owned(), "v".to_owned())].into(),
    };
    let json: serde_json::Value = serde_json::from_slice(&state.json("creating", Some(7))).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"ociVersion": "1.3.0", "id": "web", "status": "creating", "pid": 7, "bundle": "/b",
            "annotations": {"k": "v"}})
    );
    let stopped: serde_json::Value =
        serde_json::from_slice(&HookState::default().json("stopped", None)).unwrap();
    assert!(stopped.get("pid").is_none() && stopped.get("annotations").is_none());
}

#[test]
fn a_hook_has_its_own_timeout_up_to_that_of_its_caller() {
    let within = |timeout, longest| {
        let hook = Hook { path: "/h".into(), args: vec![], env: vec![], timeout };
        hook.timeout_within(Duration::from_secs(longest)).as_secs()
    };
    assert_eq!([within(Some(3), 10), within(Some(30), 10), within(None, 10)], [3, 10, 10]);
}
