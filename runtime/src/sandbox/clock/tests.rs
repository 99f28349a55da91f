use super::*;
use crate::sandbox::fake::{FakeAgent, PATIENCE};

const SECOND: i128 = 1_000_000_000;
const HOUR: i128 = 3600 * SECOND;
/// Far more than a reading takes on a busy machine, far less than what is wrong.
const NEARLY: i128 = 60 * SECOND;

fn at(real: i128, monotonic: i128) -> HostTime {
    HostTime { real, monotonic }
}

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it takes too long")
}

#[test]
fn a_reading_counts_from_the_middle_of_its_round_trip() {
    let reading = Reading::of(at(1000 * SECOND, 0), 990 * SECOND, at(1000 * SECOND + 4000, 4000)).unwrap();
    assert_eq!(reading, Reading { behind: 10 * SECOND + 2000, unsure: 2000 });
    assert_eq!(reading.correction(), Some(10_000_002_000));
}

#[test]
fn a_reading_is_of_no_use_when_the_hosts_clock_was_set_meanwhile() {
    assert_eq!(Reading::of(at(1000 * SECOND, 0), 1000 * SECOND, at(4600 * SECOND, 4000)), None);
    assert_eq!(Reading::of(at(4600 * SECOND, 0), 1000 * SECOND, at(1000 * SECOND, 4000)), None);
}

#[test]
fn a_difference_that_the_round_trip_may_account_for_is_left_alone() {
    assert_eq!(Reading { behind: 40_000, unsure: 50_000 }.correction(), None);
    assert_eq!(Reading { behind: -60_000, unsure: 50_000 }.correction(), Some(-60_000));
}

#[test]
fn an_absurd_answer_of_the_guest_is_a_large_correction_and_nothing_else() {
    for (seconds, expected) in [(i64::MAX, i64::MIN), (i64::MIN, i64::MAX)] {
        let guest = i128::from(seconds) * SECOND + i128::from(u32::MAX);
        let reading = Reading::of(at(SECOND, 0), guest, at(SECOND, 0)).unwrap();
        assert_eq!(reading.correction(), Some(expected));
    }
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off_is_right_after_a_correction() {
    for behind in [HOUR, -HOUR] {
        let agent = FakeAgent::default();
        agent.machine().clock_behind = behind;
        let clock = Clock::follow(agent.connect());
        patiently(clock.correct()).await;
        let left = agent.machine().clock_behind;
        assert!(left.abs() < NEARLY, "{left} of {behind} are left");
    }
}

#[tokio::test]
async fn corrections_that_are_asked_for_at_once_do_not_add_up() {
    let agent = FakeAgent::default();
    let clock = Clock::follow(agent.connect());
    patiently(clock.correct()).await;
    agent.machine().clock_behind = HOUR;
    patiently(futures::future::join_all((0..8).map(|_| clock.correct()))).await;
    let left = agent.machine().clock_behind;
    assert!(left.abs() < NEARLY, "{left} are left");
}

#[tokio::test]
async fn a_guest_that_refuses_is_asked_again_the_next_time() {
    let agent = FakeAgent::default();
    (agent.machine().clock_behind, agent.machine().refuses_time) = (HOUR, true);
    let clock = Clock::follow(agent.connect());
    patiently(clock.correct()).await;
    assert_eq!(agent.machine().clock_behind, HOUR);
    agent.machine().refuses_time = false;
    patiently(clock.correct()).await;
    assert!(agent.machine().clock_behind.abs() < NEARLY);
}

/// By a nanosecond, which nobody else notices. False when this process may not.
fn set_the_hosts_clock() -> bool {
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    change.time.tv_usec = 1;
    // SAFETY: `change` is a timex that outlives the call, which reads and writes it.
    unsafe { libc::adjtimex(&raw mut change) >= 0 }
}

#[tokio::test]
async fn each_time_that_the_hosts_clock_is_set_is_news() {
    let host = HostClock::watch().unwrap();
    for _ in 0..2 {
        if !set_the_hosts_clock() {
            eprintln!("SKIPPED: needs CAP_SYS_TIME");
            return;
        }
        patiently(HostClock::was_set(Some(&host))).await;
    }
}
