use super::*;

#[test]
fn mappings_are_lines_of_three_numbers() {
    let mappings = [
        IdMapping { container: 0, host: 1000, size: 1 },
        IdMapping { container: 1, host: 100_000, size: 65_535 },
    ];
    assert_eq!(text(&mappings), "0 1000 1\n1 100000 65535\n");
}
