use super::*;

#[test]
fn the_ids_that_callers_use_are_accepted() {
    for id in ["a", "web-1", "A_b+c.d", &"f".repeat(64)] {
        assert_eq!(id.parse::<ContainerId>().unwrap().as_str(), id);
    }
}

#[test]
fn an_id_that_could_name_another_path_is_refused() {
    assert_eq!("".parse::<ContainerId>(), Err(IdError::Empty));
    assert_eq!("..".parse::<ContainerId>(), Err(IdError::Reserved { id: "..".into() }));
    assert!(matches!("a/b".parse::<ContainerId>(), Err(IdError::Character { bad: '/', .. })));
    assert!(matches!("a\nb".parse::<ExecId>(), Err(IdError::Character { bad: '\n', .. })));
    assert_eq!("x".repeat(129).parse::<ContainerId>(), Err(IdError::TooLong { len: 129 }));
}

#[test]
fn json_goes_through_the_same_check() {
    assert!(serde_json::from_str::<ContainerId>("\"a/b\"").is_err());
    assert_eq!(serde_json::to_string(&"web".parse::<ContainerId>().unwrap()).unwrap(), "\"web\"");
}
