use super::*;

#[test]
fn mappings_are_one_line_each() {
    let map = [
        IdMapping { container: 0, host: 100_000, size: 1000 },
        IdMapping { container: 1000, host: 5, size: 1 },
    ];
    assert_eq!(map_text(&map), "0 100000 1000\n1000 5 1\n");
}

#[test]
fn we_are_in_none_but_our_own_namespaces() {
    assert_eq!(foreign(std::process::id()).unwrap(), 0);
}

#[test]
fn each_namespace_has_its_own_bit() {
    let all = FILES.iter().fold(0, |bits, (_, kind)| bits | bit(*kind));
    assert_eq!(all.count_ones() as usize, FILES.len());
}
