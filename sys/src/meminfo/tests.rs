use super::*;

#[test]
fn a_field_is_found_by_its_whole_name() {
    let text =
        "MemTotal:       16384256 kB\nSwapCached:            0 kB\nSwap:   7\nHugePages_Total:       3\n";
    assert_eq!(kib(text, "MemTotal"), Some(16_384_256));
    assert_eq!(kib(text, "SwapCached"), Some(0));
    for missing in ["Swap", "Mem", "HugePages_Total", "MemFree"] {
        assert_eq!(kib(text, missing), None, "{missing}");
    }
    assert_eq!(kib("", "MemTotal"), None);
}
