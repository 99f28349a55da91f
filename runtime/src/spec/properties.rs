//! Whatever a bundle holds, it is taken or refused: nothing panics, and what is taken is bounded.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::{fixture::bundle, parse_update};

/// Values that fields of a `config.json` have, and others.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z/.:,= 0-9-]{0,20}".prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let names = prop_oneof!["type|path|source|destination|options|limit|cpus|names|action", "[a-z]{1,8}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The places in a value, as JSON pointers.
fn places(value: &Value, here: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| places(value, format!("{here}/{name}"), all));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| places(value, format!("{here}/{index}"), all));
        }
        _ => {}
    }
    all.push(here);
}

proptest! {
    #[test]
    fn a_bundle_with_any_values_is_taken_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..3),
    ) {
        let mut spec: Value = serde_json::from_str(super::TEMPLATE).unwrap();
        let directory = bundle();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&spec, String::new(), &mut all);
            let pointer: &String = place.get(&all);
            if let Some(target) = spec.pointer_mut(pointer) {
                *target = value;
            }
        }
        std::fs::write(directory.dir().join("config.json"), spec.to_string()).unwrap();
        match super::load(directory.dir(), &"web".parse().unwrap(), &super::Policy::default(), None) {
            Ok(taken) => prop_assert!(!taken.json.is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_no_bundle_or_one(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let directory = bundle();
        std::fs::write(directory.dir().join("config.json"), &bytes).unwrap();
        prop_assert!(super::load(directory.dir(), &"web".parse().unwrap(), &super::Policy::default(), None).is_err());
    }

    #[test]
    fn any_update_is_taken_or_refused(value in value()) {
        let _ = parse_update(value.to_string().as_bytes());
    }
}
