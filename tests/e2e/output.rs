//! Output bytes are exact, also when the process exits right after writing them.

use bulkhead_tests::{host::TestHost, probe::bytes};

/// Fast exits to try by `exec`, each with another length; `BULKHEAD_FAST_EXITS` asks for more.
fn fast_exits() -> u64 {
    std::env::var("BULKHEAD_FAST_EXITS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

#[test]
fn a_process_that_writes_and_exits_at_once_loses_nothing() {
    let host = TestHost::new();
    let container = host.create("spew", &host.bundle().args(["probe", "linger"]));
    container.start();
    for seed in 0..fast_exits() {
        // 0 to 200 KB; odd multiples reach every remainder.
        let length = (seed * 7919 * 26 + seed) % 200_001;
        let finished = container.exec(["probe", "spew", &seed.to_string(), &length.to_string()]);
        assert_eq!(finished.code(), 0, "seed {seed}: {}", finished.errors());
        let expected = bytes(seed, usize::try_from(length).unwrap());
        assert!(finished.stdout == expected, "seed {seed}: {} of {length} bytes", finished.stdout.len());
    }
    container.delete_force();
}

#[test]
fn the_first_process_loses_nothing_either() {
    let host = TestHost::new();
    for (seed, length) in [(1_u64, 0_usize), (2, 1), (3, 65_536), (4, 200_000)] {
        let finished =
            host.run(&host.bundle().args(["probe", "spew", &seed.to_string(), &length.to_string()]));
        finished.exited(0);
        assert!(finished.stdout == bytes(seed, length), "{} of {length} bytes", finished.stdout.len());
    }
}

#[test]
fn a_grandchild_that_keeps_the_pipe_does_not_hold_up_the_exit() {
    let host = TestHost::new();
    let container = host.create("pipe", &host.bundle().args(["probe", "linger"]));
    container.start();
    let finished = container.exec(["sh", "-c", "sleep 1000 & echo done; exit 5"]);
    assert_eq!((finished.code(), finished.text().as_str()), (5, "done\n"));
    container.delete_force();
}
