use super::*;

#[test]
fn the_count_of_kills_is_not_taken_from_a_longer_name() {
    assert_eq!(event("oom 9\noom_kill 3\noom_group_kill 7\n", "oom_kill"), 3);
    assert_eq!(event("oom_kill_x 3\n", "oom_kill"), 0);
}
