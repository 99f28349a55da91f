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
