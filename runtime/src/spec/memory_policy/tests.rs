use serde_json::{Value, json};

use super::super::fixture::bundle;
use super::*;

fn taken(value: Value) -> Option<MemoryPolicy> {
    bundle().set("linux.memoryPolicy", value).guest().confinement.memory_policy
}

fn refusal(value: Value) -> String {
    bundle().set("linux.memoryPolicy", value).refusal()
}

#[test]
fn modes_and_flags_become_one_number() {
    assert_eq!(bundle().guest().confinement.memory_policy, None);
    assert_eq!(taken(json!({"mode": "MPOL_DEFAULT"})), Some(MemoryPolicy { mode: 0, nodes: 0 }));
    assert_eq!(taken(json!({"mode": "MPOL_PREFERRED"})), Some(MemoryPolicy { mode: 1, nodes: 0 }));
    let bound = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    assert_eq!(taken(bound), Some(MemoryPolicy { mode: 1 << 15 | 2, nodes: 1 }));
}

#[test]
fn a_node_that_the_guest_lacks_is_refused() {
    assert_eq!(
        refusal(json!({"mode": "MPOL_BIND", "nodes": "0-1"})),
        "linux.memoryPolicy.nodes: 1 is beyond 0, the last that a guest can have"
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    assert_eq!(refusal(json!({})), "linux.memoryPolicy.mode is missing");
    let text = refusal(json!({"mode": "BIND"}));
    assert!(text.starts_with("linux.memoryPolicy.mode: \"BIND\" is not one of MPOL_BIND, "), "{text}");
    let text = refusal(json!({"mode": "MPOL_BIND"}));
    assert_eq!(text, "linux.memoryPolicy.nodes: MPOL_BIND needs nodes");
    let text = refusal(json!({"mode": "MPOL_LOCAL", "nodes": "0"}));
    assert_eq!(text, "linux.memoryPolicy.nodes: MPOL_LOCAL takes no nodes");
    let flags = |list: Value| json!({"mode": "MPOL_BIND", "nodes": "0", "flags": list});
    assert_eq!(refusal(flags(json!(["X"]))), "linux.memoryPolicy.flags[0]: \"X\" is not a flag");
    let text = refusal(flags(json!(["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"])));
    assert_eq!(text, "linux.memoryPolicy.flags: nodes cannot be static and relative");
}
