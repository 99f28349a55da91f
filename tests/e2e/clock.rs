//! The guest's clock follows the host's. The tests set the guest's wrong, not the host's, which others look at.

use bulkhead_tests::host::{Bundle, Container, TestHost};
use serde_json::json;

/// May set its guest's clock, does so, waits for the right time and goes on.
fn late(host: &TestHost) -> Bundle {
    let caps = json!(["CAP_SYS_TIME"]);
    host.bundle()
        .set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }))
        .sh("probe late 3600 && probe linger")
}

fn started<'a>(host: &'a TestHost, id: &str) -> Container<'a> {
    let web = host.create(id, &late(host));
    web.start();
    web.until_stdout("late");
    web
}

/// By a nanosecond.
fn set_the_hosts_clock() {
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    change.time.tv_usec = 1;
    // SAFETY: `change` is a timex that outlives the call, which reads and writes it.
    let state = unsafe { libc::adjtimex(&raw mut change) };
    assert!(state >= 0, "set the host's clock: {}", std::io::Error::last_os_error());
}

#[test]
fn the_guest_has_the_hosts_time_once_that_is_set() {
    let host = TestHost::new();
    let web = started(&host, "web");
    set_the_hosts_clock();
    web.until_stdout("right");
    web.delete_force();
}

#[test]
fn a_container_that_was_paused_goes_on_with_the_hosts_time() {
    let host = TestHost::new();
    let web = started(&host, "web");
    web.command("pause", [""; 0]).success();
    web.command("resume", [""; 0]).success();
    web.until_stdout("right");
    web.delete_force();
}
