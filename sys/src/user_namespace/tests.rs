use super::*;

#[test]
fn mappings_are_lines_of_three_numbers() {
    let mappings = [
        Mapping { inside: 0, outside: 1000, count: 1 },
        Mapping { inside: 1, outside: 100_000, count: 65_535 },
    ];
    assert_eq!(text(&mappings), "0 1000 1\n1 100000 65535\n");
}

#[test]
fn maps_that_the_kernel_does_not_take_are_an_error() {
    // Ranges that overlap; without privileges it fails before.
    let twice = [Mapping { inside: 0, outside: 0, count: 2 }, Mapping { inside: 1, outside: 5, count: 1 }];
    with_maps(&twice, &twice).unwrap_err();
}

#[test]
fn a_map_says_what_an_id_is_outside() {
    let rootless = "         0       4242          1\n         1     100000      65536\n";
    assert_eq!(
        (outside(rootless, 0), outside(rootless, 1), outside(rootless, 65_536)),
        (Some(4242), Some(100_000), Some(165_535))
    );
    assert_eq!((outside(rootless, 65_537), outside("", 0)), (None, None));
    assert!(!maps_all(rootless) && maps_all("         0          0 4294967295\n"));
}
