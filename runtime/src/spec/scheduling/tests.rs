use serde_json::{Value, json};

use super::super::fixture::bundle;
use super::*;

fn taken(field: &str, value: Value) -> Scheduling {
    bundle().set(&format!("process.{field}"), value).guest().process.scheduling
}

fn refusal(field: &str, value: Value) -> String {
    bundle().set(&format!("process.{field}"), value).refusal()
}

#[test]
fn without_the_fields_nothing_is_changed() {
    assert_eq!(bundle().guest().process.scheduling, Scheduling::default());
    assert_eq!(taken("execCPUAffinity", json!({})), Scheduling::default());
    assert_eq!(taken("scheduler", json!(null)), Scheduling::default());
}

#[test]
fn every_policy_becomes_its_number_with_its_own_values() {
    for (policy, number) in [("SCHED_OTHER", 0), ("SCHED_BATCH", 3), ("SCHED_IDLE", 5)] {
        let scheduler = taken("scheduler", json!({"policy": policy, "nice": -5})).scheduler.unwrap();
        assert_eq!((scheduler.policy, scheduler.nice), (number, -5));
    }
    for (policy, number) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        let scheduler = taken("scheduler", json!({"policy": policy, "priority": 99})).scheduler.unwrap();
        assert_eq!((scheduler.policy, scheduler.priority), (number, 99));
    }
    let times = json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3});
    let scheduler = taken("scheduler", times).scheduler.unwrap();
    let values = (scheduler.policy, scheduler.runtime_ns, scheduler.deadline_ns, scheduler.period_ns);
    assert_eq!(values, (6, 1, 2, 3));
}

#[test]
fn values_that_do_not_go_with_the_policy_are_refused() {
    assert_eq!(refusal("scheduler", json!({})), "process.scheduler.policy is missing");
    let text = refusal("scheduler", json!({"policy": "BATCH"}));
    assert!(text.starts_with("process.scheduler.policy: \"BATCH\" is not one of SCHED_OTHER, "), "{text}");
    assert_eq!(
        refusal("scheduler", json!({"policy": "SCHED_ISO"})),
        "process.scheduler.policy \"SCHED_ISO\" is not supported: Linux reserves the name and has no such policy"
    );
    let text = refusal("scheduler", json!({"policy": "SCHED_BATCH", "nice": 20}));
    assert_eq!(text, "process.scheduler.nice: 20 is not between -20 and 19");
    let text = refusal("scheduler", json!({"policy": "SCHED_BATCH", "priority": 1}));
    assert_eq!(text, "process.scheduler.priority: only SCHED_FIFO and SCHED_RR take a priority");
    for priority in [0, -1, 100] {
        let text = refusal("scheduler", json!({"policy": "SCHED_RR", "priority": priority}));
        assert_eq!(text, format!("process.scheduler.priority: {priority} is not between 1 and 99"));
    }
    let text = refusal("scheduler", json!({"policy": "SCHED_OTHER", "period": 1}));
    assert_eq!(text, "process.scheduler.period: only SCHED_DEADLINE takes this field");
}

#[test]
fn scheduler_flags_become_bits_and_clamps_are_refused() {
    let flags = |names: Value| json!({"policy": "SCHED_OTHER", "flags": names});
    let all = json!([
        "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_RECLAIM",
        "SCHED_FLAG_DL_OVERRUN",
        "SCHED_FLAG_KEEP_POLICY",
        "SCHED_FLAG_KEEP_PARAMS"
    ]);
    assert_eq!(taken("scheduler", flags(all)).scheduler.unwrap().flags, 0x1f);
    let text = refusal("scheduler", flags(json!(["SCHED_FLAG_UTIL_CLAMP_MIN"])));
    let start = "process.scheduler.flags[0] \"SCHED_FLAG_UTIL_CLAMP_MIN\" is not supported: ";
    assert!(text.starts_with(start), "{text}");
    let text = refusal("scheduler", flags(json!(["RESET"])));
    assert_eq!(text, "process.scheduler.flags[0]: \"RESET\" is not a flag");
}

#[test]
fn io_classes_and_priorities_are_taken_in_their_ranges() {
    for (class, number) in [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)] {
        let taken = taken("ioPriority", json!({"class": class, "priority": 7})).io_priority;
        assert_eq!(taken, Some(IoPriority { class: number, priority: 7 }));
    }
    assert_eq!(refusal("ioPriority", json!({"priority": 1})), "process.ioPriority.class is missing");
    let text = refusal("ioPriority", json!({"class": "RT"}));
    assert!(text.starts_with("process.ioPriority.class: \"RT\" is not one of IOPRIO_CLASS_RT, "), "{text}");
    let text = refusal("ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}));
    assert_eq!(text, "process.ioPriority.priority: 8 is not between 0 and 7");
}

#[test]
fn lists_of_cpus_become_sets() {
    let cpus = |value| taken("execCPUAffinity", value).exec_cpus.unwrap();
    let both = cpus(json!({"initial": "0-3,7", "final": "1"}));
    assert_eq!((both.initial, both.last), (Cpus::new(0x8f), Cpus::new(2)));
    assert_eq!(cpus(json!({"final": "0-31"})).last, Cpus::new(0xffff_ffff));
    assert_eq!(cpus(json!({"initial": "0"})).last, None);
    for (list, reason) in [
        ("a", "\"a\" is not a list such as 0-3,7"),
        ("0,", "\"0,\" is not a list such as 0-3,7"),
        ("-1", "\"-1\" is not a list such as 0-3,7"),
        ("3-1", "the range \"3-1\" goes backwards"),
        ("0,32", "32 is beyond 31, the last that a guest can have"),
        ("0-4294967295", "4294967295 is beyond 31, the last that a guest can have"),
    ] {
        let text = refusal("execCPUAffinity", json!({"final": list}));
        assert_eq!(text, format!("process.execCPUAffinity.final: {reason}"));
    }
}
