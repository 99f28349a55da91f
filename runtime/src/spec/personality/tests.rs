use serde_json::{Value, json};

use super::super::fixture::bundle;
use super::*;

fn refusal(value: Value) -> String {
    bundle().set("linux.personality", value).refusal()
}

#[test]
fn both_domains_are_taken() {
    let taken =
        |domain| bundle().set("linux.personality", json!({"domain": domain})).guest().confinement.personality;
    assert_eq!(taken("LINUX"), Some(Personality::Linux));
    assert_eq!(taken("LINUX32"), Some(Personality::Linux32));
    assert_eq!(bundle().guest().confinement.personality, None);
}

#[test]
fn others_and_flags_are_refused() {
    assert_eq!(refusal(json!({})), "linux.personality.domain is missing");
    let text = refusal(json!({"domain": "BSD"}));
    assert_eq!(text, "linux.personality.domain: \"BSD\" is not one of LINUX, LINUX32");
    assert_eq!(
        refusal(json!({"domain": "LINUX", "flags": ["X"]})),
        "linux.personality.flags[0] \"X\" is not supported: the specification defines no flags"
    );
}
