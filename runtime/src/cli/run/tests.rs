use bulkhead_protocol::timeline::Phase;

use super::*;

#[test]
fn the_timeline_counts_from_the_command() {
    let stamp = |phase, monotonic_ns| Stamp { phase, monotonic_ns };
    let stamps = [
        stamp(Phase::Command, 5_000_000),
        stamp(Phase::ServerUp, 7_500_000),
        stamp(Phase::AgentUp, 1_005_000_000),
    ];
    let table = timeline_table(&stamps);
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1], ["command", "0.0", "0.0"]);
    assert_eq!(words[2], ["server-up", "2.5", "2.5"]);
    assert_eq!(words[3], ["agent-up", "1000.0", "997.5"]);
}
