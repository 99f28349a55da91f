use bulkhead_protocol::container::ContainerSpec;

use super::*;

fn message(error: ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => status.message().to_owned(),
        other => panic!("not a status: {other}"),
    }
}

#[test]
fn a_spec_that_is_too_large_is_refused_before_it_is_parsed() {
    let error = from_json::<ContainerSpec>("container spec", &vec![b' '; limits::CONTAINER_SPEC + 1]);
    assert_eq!(message(error.unwrap_err()), "container spec of 3145729 bytes is too large");
}

#[test]
fn a_spec_that_is_not_one_says_why() {
    let error = message(from_json::<ContainerSpec>("container spec", b"{\"rootfs\":1}").unwrap_err());
    assert!(error.starts_with("container spec: "), "{error}");
}

#[test]
fn stdio_that_is_left_out_means_no_streams() {
    let stdio = stdio(MessageField::none()).unwrap();
    assert_eq!((stdio.token, stdio.wanted), (None, Wanted::default()));
}

#[test]
fn an_empty_exec_id_is_the_init_and_a_bad_one_is_refused() {
    assert_eq!(exec_id("").unwrap(), None);
    assert!(exec_id("../x").is_err());
    assert_eq!(exec_id("e1").unwrap().unwrap().as_str(), "e1");
}
