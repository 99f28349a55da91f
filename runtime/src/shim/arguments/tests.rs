use super::*;

fn parse(line: &str) -> Result<Arguments, ArgumentsError> {
    Arguments::parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn the_calls_of_containerd_and_cri_o_are_understood() {
    let line = "-namespace k8s.io -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id web";
    let start = parse(&format!("{line} start")).unwrap();
    assert_eq!((start.action, start.namespace.as_str()), (Action::Start, "k8s.io"));
    assert_eq!(start.id.unwrap().as_str(), "web");
    let delete = parse(&format!("{line} -bundle /b -debug delete")).unwrap();
    assert_eq!((delete.action, delete.bundle, delete.debug), (Action::Delete, Some("/b".into()), true));
    assert_eq!(parse("-v").unwrap().action, Action::Version);
    assert_eq!(parse("--version").unwrap().action, Action::Version);
    assert_eq!(parse("-info").unwrap().action, Action::Info);
    assert_eq!(parse("features").unwrap().action, Action::Features);
    assert_eq!(parse("-id=web -debug=false start").unwrap().namespace, "default");
}

#[test]
fn what_is_no_call_is_refused_by_name() {
    let refused = |line| parse(line).unwrap_err();
    assert!(matches!(refused(""), ArgumentsError::NoAction));
    assert!(matches!(refused("-id web restart"), ArgumentsError::Action(word) if word == "restart"));
    assert!(matches!(refused("-id"), ArgumentsError::Value(flag) if flag == "id"));
    assert!(matches!(refused("-colour red start"), ArgumentsError::Flag(_)));
    assert!(matches!(refused("start"), ArgumentsError::Id(_)));
    assert!(matches!(refused("-id a/b start"), ArgumentsError::Id(_)));
    assert!(matches!(refused("-namespace .. -id web start"), ArgumentsError::Namespace(_)));
    assert!(matches!(refused("-namespace a/b -id web start"), ArgumentsError::Namespace(_)));
}
