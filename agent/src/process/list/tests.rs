use super::*;

const STAT: &str = "42 (a) S (b) R) S 7 42 42 0 -1 4194560 120 0 0 0 31 11 0 0 20 0 1 0 9001 5000000 77 184467 \
    1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0";

#[test]
fn a_name_with_parentheses_and_spaces_does_not_move_the_fields() {
    let expected = Stat {
        name: "a) S (b) R".into(),
        state: 'S',
        ppid: 7,
        cpu_ticks: 42,
        start_ticks: 9001,
        rss_pages: 77,
    };
    assert_eq!(parse_stat(STAT), Some(expected));
}

#[test]
fn a_stat_that_is_cut_short_is_nobody() {
    assert_eq!(parse_stat("42 (sh) S 7 42"), None);
    assert_eq!(parse_stat(""), None);
}

#[test]
fn a_command_is_its_arguments_or_the_kernels_name() {
    assert_eq!(command(b"sh\0-c\0sleep 1\0", "sh"), "sh -c sleep 1");
    assert_eq!(command(b"", "kworker/0:1"), "[kworker/0:1]");
}

#[test]
fn this_very_process_is_listed_and_a_dead_one_is_not() {
    let own = read(Path::new("/proc"), std::process::id()).unwrap();
    assert_eq!(own.uid, rustix::process::geteuid().as_raw());
    assert!(own.rss_bytes > 0 && own.start_ticks > 0 && !own.command.is_empty());
    assert_eq!(read(Path::new("/proc"), u32::MAX), None);
}
