use super::*;

#[test]
fn flat_files_become_names_and_numbers() {
    let stat = keyed("usage_usec 12\nuser_usec 7\nbroken\nodd x\n");
    assert_eq!((stat.len(), stat["usage_usec"], stat["user_usec"]), (2, 12, 7));
}

#[test]
fn no_limit_is_the_largest_number_and_a_missing_file_is_nothing() {
    assert_eq!((limit("max\n"), limit("4096\n"), limit("")), (u64::MAX, 4096, 0));
    assert_eq!(read_text(Path::new("/nonexistent")), "");
}

#[test]
fn a_device_has_its_four_counters() {
    let stat = device("254:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0").unwrap();
    assert_eq!((stat.major, stat.minor), (254, 16));
    assert_eq!((stat.read_bytes, stat.written_bytes, stat.reads, stat.writes), (1, 2, 3, 4));
    assert!(device("").is_none() && device("254 rbytes=1").is_none());
}

#[test]
fn huge_pages_are_found_by_their_files() {
    let dir = tempfile::tempdir().unwrap();
    for (file, value) in [
        ("hugetlb.2MB.current", "2097152\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.rsvd.current", "0\n"),
        ("memory.current", "1\n"),
    ] {
        std::fs::write(dir.path().join(file), value).unwrap();
    }
    let rows = hugetlb(dir.path());
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].page_size.as_str(), rows[0].current, rows[0].max), ("2MB", 2_097_152, u64::MAX));
}

#[test]
fn interfaces_have_eight_counters_each_way() {
    let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n\
        lo: 100 2 0 0 0 0 0 0 100 2 0 0 0 0 0 0\n  eth0:7 1 2 3 0 0 0 0 9 4 5 6 0 0 0 0\nshort: 1 2\n";
    let rows = interfaces(text);
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["lo", "eth0"]);
    let eth0 = &rows[1];
    assert_eq!((eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped), (7, 1, 2, 3));
    assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (9, 4, 5, 6));
}
