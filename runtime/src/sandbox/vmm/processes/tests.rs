use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A shell that stands for the outer process, and the pid of its child.
fn outer() -> (Child, u32) {
    let script = "sleep 1000 & echo $!; wait";
    let mut outer = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(outer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (outer, line.trim().parse().unwrap())
}

#[test]
fn the_outer_process_and_its_child_are_ended() {
    let (mut outer, inner) = outer();
    let processes = Processes::of(outer.id()).unwrap();
    // The outer one is not in the jail.
    assert_eq!(processes.jailed().unwrap_err().kind(), io::ErrorKind::NotFound);
    let inner = processes.adopt(inner).unwrap().unwrap();
    processes.jailed().unwrap();
    processes.end(Instant::now() + PATIENCE);
    assert!(!inner.is_alive() && !processes.outer().is_alive());
    outer.wait().unwrap();
}

#[test]
fn a_process_of_somebody_else_is_not_taken_for_the_vmms() {
    let (mut outer, inner) = outer();
    let (mut other, others) = self::outer();
    let processes = Processes::of(outer.id()).unwrap();
    // Its own, init, this process, this one's parent, and a child of another VMM.
    for pid in [outer.id(), 1, std::process::id(), std::os::unix::process::parent_id(), others] {
        assert!(matches!(processes.adopt(pid), Err(AdoptError::Foreign { .. })), "{pid}");
    }
    assert_eq!(processes.adopt(u32::MAX).unwrap(), None);
    processes.adopt(inner).unwrap().unwrap();
    processes.end(Instant::now() + PATIENCE);
    assert!(Process::of(others).unwrap().is_alive());
    for pid in [others, other.id()] {
        Process::of(pid).unwrap().kill().unwrap();
    }
    outer.wait().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_process_that_is_older_than_the_vmm_is_not_the_vmms() {
    let older = Command::new("sleep").arg("1000").spawn().unwrap();
    let (mut outer, inner) = outer();
    let mut processes = Processes::of(outer.id()).unwrap();
    // By the parent alone it would pass: this process stands for the server. The clock of start times is coarse.
    processes.outer.start_ticks += 1;
    let mut older = older;
    assert!(matches!(processes.adopt(older.id()), Err(AdoptError::Foreign { .. })));
    older.kill().unwrap();
    older.wait().unwrap();
    Process::of(inner).unwrap().kill().unwrap();
    processes.end(Instant::now() + PATIENCE);
    outer.wait().unwrap();
}

#[test]
fn a_process_that_a_signal_has_stopped_stands_still_until_it_goes_on_or_ends() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let processes = Processes::of(child.id()).unwrap();
    assert!(!processes.stand_still());
    let pid = rustix::process::Pid::from_child(&child);
    // wait(2) tells of the stop and of the way on: signals are delivered when the process is next at it.
    let told = |options| rustix::process::waitpid(Some(pid), options).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    told(rustix::process::WaitOptions::UNTRACED);
    assert!(processes.stand_still());
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    told(rustix::process::WaitOptions::CONTINUED);
    assert!(!processes.stand_still());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!processes.stand_still());
}
