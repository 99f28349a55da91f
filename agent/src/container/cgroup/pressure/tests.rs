use std::sync::Arc;

use super::*;

const HIGH: u64 = 400 * MIB;

fn usage(held_mib: u64, cache_mib: u64) -> Usage {
    Usage {
        at: Instant::now(),
        held: held_mib * MIB,
        cache: cache_mib * MIB,
        read_again: 0,
        stalled: Duration::ZERO,
    }
}

/// `later`, when files of so many MiB were read again since the beginning, and programs waited.
fn later(usage: Usage, after: Duration, read_again_mib: u64, stalled: Duration) -> Usage {
    Usage { at: usage.at + after, read_again: read_again_mib * MIB, stalled, ..usage }
}

#[test]
fn containers_are_held_below_the_memory_of_the_guest_and_have_half_of_a_small_one() {
    assert_eq!(high(487 * MIB) / MIB, 487 - 48 - 15 - 1);
    assert_eq!(high(46 * MIB), 23 * MIB);
    assert_eq!(high(0), 0);
}

#[test]
fn what_cannot_be_taken_back_is_pressure_and_a_full_cache_is_none() {
    let mut judge = Judge::new(HIGH, usage(100, 300));
    assert!(!judge.pressed(usage(100, 300)));
    assert!(!judge.pressed(usage(349, 51)));
    assert!(judge.pressed(usage(350, 50)));
    assert!(judge.pressed(usage(400, 0)));
}

#[test]
fn files_that_are_read_again_while_programs_wait_are_pressure_until_they_have_their_share() {
    let second = Duration::from_secs(1);
    let tried = |held, cache, read_again, stalled| {
        let begin = usage(held, cache);
        Judge::new(HIGH, begin).pressed(later(begin, second, read_again, Duration::from_millis(stalled)))
    };
    assert!(tried(200, 200, 7, 100));
    assert!(!tried(200, 200, 6, 100), "hardly anything was read again");
    assert!(!tried(200, 200, 7, 99), "nobody waited for it");
    assert!(!tried(200, 1024, 1000, 1000), "they have enough");
    let begin = usage(100, 300);
    let soon = later(begin, WINDOW / 2, 100, WINDOW / 2);
    assert!(!Judge::new(HIGH, begin).pressed(soon), "it may be over at once");
}

#[test]
fn a_window_begins_where_the_last_one_ended() {
    let begin = usage(100, 300);
    let mut judge = Judge::new(HIGH, begin);
    let quiet = later(begin, Duration::from_secs(60), 0, Duration::ZERO);
    assert!(!judge.pressed(quiet));
    let busy = later(begin, Duration::from_secs(61), 50, Duration::from_millis(200));
    assert!(judge.pressed(busy));
}

#[test]
fn usage_is_read_from_the_files_of_a_cgroup() {
    let stat = "anon 100\nfile 800\nkernel 60\nshmem 300\nunevictable 0\nslab_reclaimable 40\nworkingset_refault_file 3\n";
    let pressure =
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
    let usage = Usage::of("1000\n", stat, pressure);
    assert_eq!((usage.held, usage.cache, usage.read_again), (1000 - 540, 540, 3 * PAGE));
    assert_eq!(usage.stalled, Duration::from_micros(2500));
    // What the kernel says while it changes, or does not say.
    let odd = Usage::of("1", "file 100\nshmem 200\nslab_reclaimable 18446744073709551615\n", "");
    assert_eq!((odd.held, odd.cache), (0, 1));
}

fn files() -> (tempfile::TempDir, Arc<Pressure>) {
    let dir = tempfile::tempdir().unwrap();
    let cgroup = dir.path().join(PARENT);
    fs::create_dir(&cgroup).unwrap();
    let meminfo = dir.path().join("meminfo");
    fs::write(&meminfo, "MemTotal:         498688 kB\n").unwrap();
    for (file, text) in [
        ("memory.high", "max\n"),
        ("memory.current", "1048576\n"),
        ("memory.stat", "file 0\n"),
        ("memory.pressure", ""),
        ("memory.events.local", "high 0\n"),
    ] {
        fs::write(cgroup.join(file), text).unwrap();
    }
    let pressure = Pressure { cgroup, meminfo, ..Pressure::below(dir.path()) };
    (dir, Arc::new(pressure))
}

async fn until_high(pressure: &Pressure, value: &str) {
    while fs::read_to_string(pressure.cgroup.join("memory.high")).unwrap() != value {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn containers_are_held_until_they_press_and_let_go_when_there_is_no_more() {
    let (_dir, pressure) = files();
    let waiting = tokio::spawn({
        let pressure = pressure.clone();
        async move { pressure.wait(true).await }
    });
    let held = high(498_688 << 10);
    until_high(&pressure, &held.to_string()).await;
    fs::write(pressure.cgroup.join("memory.current"), held.to_string()).unwrap();
    fs::write(pressure.cgroup.join("memory.events.local"), "high 1\n").unwrap();
    assert!(waiting.await.unwrap().unwrap());
    let waiting = tokio::spawn({
        let pressure = pressure.clone();
        async move { pressure.wait(false).await }
    });
    until_high(&pressure, "max").await;
    waiting.abort();
}

#[tokio::test]
async fn a_new_call_ends_the_one_before() {
    let (_dir, pressure) = files();
    let first = tokio::spawn({
        let pressure = pressure.clone();
        async move { pressure.wait(true).await }
    });
    until_high(&pressure, &high(498_688 << 10).to_string()).await;
    let second = tokio::spawn({
        let pressure = pressure.clone();
        async move { pressure.wait(true).await }
    });
    assert!(!first.await.unwrap().unwrap());
    second.abort();
}

#[tokio::test]
async fn a_cgroup_that_is_not_there_is_an_error() {
    let (dir, pressure) = files();
    fs::remove_dir_all(dir.path().join(PARENT)).unwrap();
    assert!(matches!(pressure.wait(true).await, Err(PressureError::Hold { .. })));
}
