use super::*;

#[test]
fn memory_is_counted_where_the_host_gives_the_controller() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!is_counted(dir.path()));
    for (controllers, counted) in [("cpu io memory pids\n", true), ("cpu io pids\n", false)] {
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        assert_eq!(is_counted(dir.path()), counted);
    }
}

#[test]
fn processes_of_another_pid_namespace_are_not_moved() {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    for cgroup in [&from, &to] {
        fs::create_dir(cgroup).unwrap();
    }
    fs::write(from.join(PROCS), "0\n").unwrap();
    assert!(matches!(move_all(&from, &to), Err(OomError::Cgroup { .. })));
    assert!(!to.join(PROCS).exists());
}

#[test]
fn a_cgroup_whose_processes_do_not_leave_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    // A file does not change by itself.
    fs::write(dir.path().join(PROCS), "7\n").unwrap();
    assert!(matches!(move_all(dir.path(), dir.path()), Err(OomError::Busy { .. })));
}
