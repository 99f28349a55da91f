//! The guest's clock follows the host's. The tests set the guest's wrong, not the host's, which others look at; but for one,
//! which sets that of a lab by less than others notice.

use bulkhead_tests::host::{Bundle, Container, DEADLINE, TestHost, until};
use nix::{
    sys::time::TimeValLike,
    time::{ClockId, clock_gettime},
};
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

/// Forth or back.
fn set_the_hosts_clock(nanoseconds: i64) {
    const SECOND: i64 = 1_000_000_000;
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    change.time.tv_sec = nanoseconds.div_euclid(SECOND);
    change.time.tv_usec = nanoseconds.rem_euclid(SECOND);
    // SAFETY: `change` is a timex that outlives the call, which reads and writes it.
    let state = unsafe { libc::adjtimex(&raw mut change) };
    assert!(state >= 0, "set the host's clock: {}", std::io::Error::last_os_error());
}

#[test]
fn the_guest_has_the_hosts_time_once_that_is_set() {
    let host = TestHost::new();
    let web = started(&host, "web");
    set_the_hosts_clock(1);
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

/// The wall clock without the uptime, in milliseconds.
fn hosts_clock() -> i64 {
    let now = |clock| clock_gettime(clock).unwrap();
    (now(ClockId::CLOCK_REALTIME) - now(ClockId::CLOCK_BOOTTIME)).num_milliseconds()
}

#[test]
fn the_guest_makes_each_step_of_the_hosts_clock() {
    /// What is made up for gradually, and so stays for a while.
    const NEAR: i64 = 100;
    const STEP: i64 = 700;
    if std::env::var_os("BULKHEAD_PLACE").is_none_or(|place| place != "lab") {
        eprintln!("SKIPPED: the clock is set in the lab only");
        return;
    }
    let host = TestHost::new();
    let web = host.create("web", &host.bundle().args(["probe", "clock"]));
    web.start();
    let seen = || {
        let text = web.stdout();
        text.lines().filter_map(|line| line.strip_prefix("clock ")?.parse::<i64>().ok()).next_back()
    };
    // How much earlier the host has booted.
    let apart = until("the guest says its time", DEADLINE, seen) - hosts_clock();
    let follows = || {
        until("the guest's clock follows", DEADLINE, || {
            seen().filter(|clock| (clock - apart - hosts_clock()).abs() < NEAR)
        });
    };
    for step in [STEP, -STEP] {
        set_the_hosts_clock(step * 1_000_000);
        follows();
    }
    web.delete_force();
}
