use super::*;

#[test]
fn the_start_time_is_read_after_a_name_with_parentheses_and_spaces() {
    let line = b"7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 0";
    assert_eq!(Stat::parse(line), Some(Stat { state: b'S', parent: 1, start_ticks: 4242 }));
}

#[test]
fn this_process_is_alive_and_the_same_pid_with_another_start_is_not() {
    let me = Process::current().unwrap();
    assert_eq!(me.pid, std::process::id());
    assert!(me.is_alive());
    let other = Process { start_ticks: me.start_ticks + 1, ..me };
    assert!(!other.is_alive());
    assert!(other.pidfd().unwrap().is_none());
}

#[test]
fn a_killed_child_is_gone_for_waiters_before_it_is_reaped() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let process = Process::of(child.id()).unwrap();
    let held = process.hold().unwrap().unwrap();
    assert_eq!(held.parent().unwrap(), Some(std::process::id()));
    process.kill().unwrap();
    assert!(process.wait(Instant::now() + Duration::from_secs(10)).unwrap());
    assert!(!process.is_alive());
    assert_eq!(held.parent().unwrap(), None);
    child.wait().unwrap();
    process.kill().unwrap();
    held.kill().unwrap();
}
