use std::fs;

use super::*;

fn bundle(config: &str) -> tempfile::TempDir {
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("config.json"), config).unwrap();
    bundle
}

fn pod(config: &str) -> io::Result<String> {
    pod_of(bundle(config).path(), &"own".parse().unwrap()).map(|id| id.to_string())
}

#[test]
fn a_path_of_the_form_that_systemd_has_asks_for_a_scope() {
    let asks = |path: &str| {
        wishes_of(bundle(&format!(r#"{{"linux": {{"cgroupsPath": "{path}"}}}}"#)).path()).unwrap().scope
    };
    assert!(asks("system.slice:docker:4eb6d8ce"));
    assert!(asks("kubepods-burstable-pod1.slice:cri-containerd:4eb6d8ce"));
    for path in
        ["", "/docker/4eb6d8ce", "docker:4eb6d8ce", "a:b:c", "/a.slice:b:c", "a.slice:b:c:d", "a.slice"]
    {
        assert!(!asks(path), "{path}");
    }
    for empty in ["{}", r#"{"linux": null}"#, r#"{"linux": {"cgroupsPath": null}}"#] {
        assert_eq!(wishes_of(bundle(empty).path()).unwrap(), Wishes::default(), "{empty}");
    }
    assert_eq!(wishes_of(Path::new("/nowhere")).unwrap(), Wishes::default());
}

#[test]
fn only_the_sandbox_of_a_pod_pauses_and_only_without_a_program_of_its_own() {
    let pauses = |kind: &str, args: &str| {
        let kind = format!(r#"{{"io.kubernetes.cri.container-type": "{kind}"}}"#);
        let config = format!(r#"{{"annotations": {kind}, "process": {{"args": {args}}}}}"#);
        wishes_of(bundle(&config).path()).unwrap().pause
    };
    assert!(pauses("sandbox", r#"["/pause"]"#));
    assert!(!pauses("sandbox", r#"["/pause", "-v"]"#) && !pauses("sandbox", r#"["/init"]"#));
    assert!(!pauses("container", r#"["/pause"]"#) && !pauses("sandbox", "null"));
}

#[test]
fn a_container_of_a_pod_belongs_to_its_sandbox_and_others_to_themselves() {
    let cri = |kind: &str| {
        format!(
            r#"{{"annotations": {{"io.kubernetes.cri.container-type": "{kind}", "io.kubernetes.cri.sandbox-id": "pod"}}}}"#
        )
    };
    assert_eq!(pod(&cri("container")).unwrap(), "pod");
    assert_eq!(pod(&cri("sandbox")).unwrap(), "own");
    let cri_o = r#"{"annotations": {"io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": "pod"}}"#;
    assert_eq!(pod(cri_o).unwrap(), "pod");
    assert_eq!(pod("{}").unwrap(), "own");
    assert_eq!(pod(r#"{"annotations": null, "linux": null}"#).unwrap(), "own");
    assert_eq!(pod_of(Path::new("/nowhere"), &"own".parse().unwrap()).unwrap().as_str(), "own");
}

#[test]
fn a_bundle_that_lies_is_an_error() {
    assert!(pod("not json").is_err());
    let escapes = r#"{"annotations": {"io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": "../../etc"}}"#;
    assert!(pod(escapes).is_err());
}

#[test]
fn every_socket_has_a_path_that_fits_and_is_its_own() {
    let long = "a".repeat(76);
    let paths = [
        socket("k8s.io", &"f".repeat(64).parse().unwrap()),
        socket(&long, &format!("{}b", "c".repeat(70)).parse().unwrap()),
        socket(&long, &format!("{}d", "c".repeat(70)).parse().unwrap()),
    ];
    assert!(paths.iter().all(|path| path.as_os_str().len() <= SOCKET_PATH_MAX), "{paths:?}");
    assert_ne!(paths[1], paths[2]);
}
