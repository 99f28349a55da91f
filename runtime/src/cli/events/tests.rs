use containerd_shim_protos::cgroups_v2::metrics::{CPUStat, HugeTlbStat, IOStat, MemoryStat, PidsStat};

use super::*;

#[test]
fn statistics_have_the_shape_of_runcs() {
    let io = IOEntry { major: 8, rbytes: 1, wbytes: 2, rios: 3, wios: 4, ..Default::default() };
    let metrics = Metrics {
        cpu: Some(CPUStat { usage_usec: 5, user_usec: 2, system_usec: 3, ..Default::default() }).into(),
        memory: Some(MemoryStat { usage: 10, usage_limit: u64::MAX, file: 4, ..Default::default() }).into(),
        pids: Some(PidsStat { current: 2, limit: u64::MAX, ..Default::default() }).into(),
        io: Some(IOStat { usage: vec![io], ..Default::default() }).into(),
        hugetlb: vec![HugeTlbStat { pagesize: "2MB".into(), max: 7, ..Default::default() }],
        network: vec![NetworkStat { name: "lo".into(), rx_bytes: 9, ..Default::default() }],
        ..Default::default()
    };
    let data = data(&metrics);
    let keys: Vec<&String> = data.as_object().unwrap().keys().collect();
    let expected = ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"];
    assert_eq!(keys, expected);
    assert_eq!(data["cpu"]["usage"], json!({"total": 5000, "kernel": 3000, "user": 2000}));
    assert_eq!(
        (&data["memory"]["usage"]["usage"], &data["memory"]["usage"]["limit"]),
        (&json!(10), &json!(u64::MAX))
    );
    assert_eq!(data["memory"]["cache"], 4);
    assert_eq!(data["pids"], json!({"current": 2, "limit": 0}));
    let device = |op: &str, value: u64| json!({"major": 8, "minor": 0, "op": op, "value": value});
    assert_eq!(data["blkio"]["ioServiceBytesRecursive"], json!([device("Read", 1), device("Write", 2)]));
    assert_eq!(data["blkio"]["ioServicedRecursive"], json!([device("Read", 3), device("Write", 4)]));
    assert_eq!(data["hugetlb"]["2MB"]["max"], 7);
    assert_eq!(
        (&data["network_interfaces"][0]["Name"], &data["network_interfaces"][0]["RxBytes"]),
        (&json!("lo"), &json!(9))
    );
}

#[test]
fn durations_are_those_of_go() {
    assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
    for bad in ["", "5", "s", "0s", "5d", "-1s", "99999999999s"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}
