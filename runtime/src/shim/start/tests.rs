use containerd_shim_protos::protobuf::well_known_types::any::Any;

use super::*;

fn arguments() -> (Arguments, ContainerId) {
    let line = ["-namespace", "k8s.io", "-id", "web", "start"];
    let arguments = Arguments::parse(line.into_iter().map(Into::into)).unwrap();
    (arguments, "web".parse().unwrap())
}

fn asked_with(stdin: &[u8]) -> Vec<u8> {
    let (arguments, id) = arguments();
    answer(stdin, &arguments, &id, "unix:///s".to_owned()).unwrap()
}

#[test]
fn the_answer_has_the_form_of_the_question() {
    assert_eq!(asked_with(b""), b"unix:///s");
    let options = Any { type_url: "containerd.runc.v1.Options".into(), ..Default::default() };
    assert_eq!(asked_with(&options.write_to_bytes().unwrap()), b"unix:///s");
    let params =
        BootstrapParams { instance_id: "web".into(), namespace: "k8s.io".into(), ..Default::default() };
    let result = BootstrapResult::parse_from_bytes(&asked_with(&params.write_to_bytes().unwrap())).unwrap();
    assert_eq!((result.version, &*result.address, &*result.protocol), (3, "unix:///s", "ttrpc"));
}

#[test]
fn parameters_for_another_container_are_taken_for_options() {
    let params =
        BootstrapParams { instance_id: "other".into(), namespace: "k8s.io".into(), ..Default::default() };
    assert_eq!(asked_with(&params.write_to_bytes().unwrap()), b"unix:///s");
}
