//! Limits: the files of the container's cgroup.

use bulkhead_tests::{
    differential::{Case, agree},
    host::Bundle,
};
use serde_json::{Value, json};

fn limited(bundle: Bundle, resources: Value) -> Bundle {
    bundle.set("/linux/resources", resources)
}

const MIB: u64 = 1 << 20;

#[test]
fn limits_are_the_same_values_in_the_cgroup() {
    agree(&[
        Case::new("memory and swap", |bundle| {
            let memory = json!({ "limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB });
            limited(bundle, json!({ "memory": memory }))
        }),
        Case::new("memory without limit", |bundle| {
            limited(bundle, json!({ "memory": { "limit": -1, "swap": -1 } }))
        }),
        Case::new("no swap", |bundle| {
            limited(bundle, json!({ "memory": { "limit": 64 * MIB, "swap": 64 * MIB } }))
        }),
        Case::new("swap below memory", |bundle| {
            limited(bundle, json!({ "memory": { "limit": 64 * MIB, "swap": 32 * MIB } }))
        })
        .refused("linux.resources.memory.swap"),
        Case::new("cpu", |bundle| {
            limited(bundle, json!({ "cpu": { "shares": 512, "quota": 50_000, "period": 200_000 } }))
        }),
        Case::new("cpu shares, most", |bundle| limited(bundle, json!({ "cpu": { "shares": 262_144 } }))),
        Case::new("cpu period alone", |bundle| limited(bundle, json!({ "cpu": { "period": 50_000 } }))),
        Case::new("cpu set", |bundle| limited(bundle, json!({ "cpu": { "cpus": "0", "mems": "0" } }))),
        Case::new("pids", |bundle| limited(bundle, json!({ "pids": { "limit": 42 } }))),
        Case::new("weight of io", |bundle| limited(bundle, json!({ "blockIO": { "weight": 300 } }))),
        Case::new("huge pages", |bundle| {
            limited(bundle, json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 * MIB }] }))
        }),
        Case::new("unified", |bundle| {
            let files = json!({ "memory.high": "33554432", "memory.oom.group": "1", "pids.max": "77" });
            limited(bundle, json!({ "unified": files }))
        }),
        Case::new("unified of what there is none", |bundle| {
            limited(bundle, json!({ "unified": { "nosuch.max": "1" } }))
        })
        .refused("nosuch.max"),
    ]);
}
