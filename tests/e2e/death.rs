//! Sudden death of any of our processes: the truth within a second, and nothing left after `delete --force`.

use std::time::{Duration, Instant};

use bulkhead_tests::host::{Container, TestHost, process};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// In software emulation a second of work takes longer: room for the commands that look, not for the product.
const SOON: Duration = Duration::from_secs(15);

fn running(host: &TestHost) -> Container<'_> {
    named(host, "victim")
}

fn named<'h>(host: &'h TestHost, name: &str) -> Container<'h> {
    let container = host.create(name, &host.bundle().args(["probe", "linger"]));
    container.start();
    container.until_stdout("ready");
    container
}

fn pid(name: &str, words: &[&str], id: &str) -> Pid {
    let found = process(name, words, id).unwrap_or_else(|| panic!("no process {name} {words:?} of {id}"));
    Pid::from_raw(found.cast_signed())
}

#[test]
fn a_killed_vmm_is_a_stopped_container() {
    let host = TestHost::new();
    let victim = running(&host);
    kill(pid("bulkhead-vmm", &[], &victim.id), Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    assert_eq!(victim.wait(), 137);
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
    victim.until_status("stopped", SOON);
    victim.delete_force();
}

#[test]
fn a_killed_server_takes_its_vm_along() {
    let host = TestHost::new();
    let victim = running(&host);
    kill(pid("bulkhead", &["sandbox-server"], &victim.id), Signal::SIGKILL).unwrap();
    assert_eq!(victim.wait(), 137);
    victim.until_status("stopped", SOON);
    victim.delete_force();
}

#[test]
fn a_killed_proxy_kills_its_process() {
    let host = TestHost::new();
    let victim = running(&host);
    kill(victim.pid(), Signal::SIGKILL).unwrap();
    assert_eq!(victim.wait(), 137);
    victim.until_status("stopped", SOON);
    victim.delete_force();
}

#[test]
fn a_guest_kernel_that_panics_is_reported_with_its_last_words() {
    let host = TestHost::new();
    // The spec asks for a writable /proc: what a shared kernel could never grant.
    let bundle = host
        .bundle()
        .set("/linux/readonlyPaths", serde_json::json!([]))
        .sh("echo c > /proc/sysrq-trigger; sleep 100");
    let finished = host.run(&bundle);
    finished.failure(137, &["the guest kernel panicked", "sysrq triggered crash"]);
}

#[test]
fn a_vmm_that_was_stopped_ends_at_once_by_kill_and_delete_and_soon_by_itself() {
    let host = TestHost::new();
    let (alone, killed) = (named(&host, "alone"), named(&host, "killed"));
    let stop =
        |container: &Container<'_>| kill(pid("bulkhead-vmm", &[], &container.id), Signal::SIGSTOP).unwrap();
    for container in [&killed, &alone] {
        stop(container);
    }
    killed.kill("KILL");
    for container in [killed, alone] {
        assert_eq!(container.wait(), 137);
        assert!(container.stderr().contains("the VMM was stopped by a signal"), "{}", container.stderr());
        container.until_status("stopped", SOON);
        container.delete();
    }
    let deleted = running(&host);
    stop(&deleted);
    deleted.delete_force();
    assert_eq!(deleted.wait(), 137);
}
