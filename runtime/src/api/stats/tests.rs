use bulkhead_protocol::agent::{InterfaceStat, IoStat};

use super::*;

fn counted() -> ContainerStatsResponse {
    ContainerStatsResponse {
        cpu: [("usage_usec".to_owned(), 9), ("user_usec".to_owned(), 4)].into(),
        memory: [("anon".to_owned(), 11), ("workingset_refault_file".to_owned(), 3)].into(),
        memory_events: [("oom_kill".to_owned(), 1)].into(),
        memory_current: 4096,
        memory_max: u64::MAX,
        pids_current: 2,
        ..Default::default()
    }
}

#[test]
fn the_guests_counters_are_found_under_containerds_names() {
    let metrics = metrics(counted());
    assert_eq!((metrics.cpu.usage_usec, metrics.cpu.user_usec, metrics.cpu.nr_periods), (9, 4, 0));
    assert_eq!((metrics.memory.anon, metrics.memory.usage, metrics.memory.usage_limit), (11, 4096, u64::MAX));
    assert_eq!((metrics.memory.workingset_refault, metrics.memory_events.oom_kill), (3, 1));
    assert_eq!(metrics.pids.current, 2);
}

#[test]
fn metrics_survive_the_way_to_the_client_and_nothing_else_does() {
    let metrics = metrics(counted());
    let any = to_any(&metrics).unwrap();
    assert_eq!(from_any(&any).unwrap(), metrics);
    assert!(from_any(&Any { type_url: "x".into(), ..any }).is_err());
}

#[test]
fn a_guest_that_lists_without_end_is_cut_off() {
    let io = vec![IoStat::new(); 1000];
    let interfaces = vec![InterfaceStat::new(); 1000];
    let metrics = metrics(ContainerStatsResponse { io, interfaces, ..counted() });
    assert_eq!((metrics.io.usage.len(), metrics.network.len()), (ROWS, ROWS));
}
