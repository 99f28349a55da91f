use super::*;

#[test]
fn a_star_stands_for_any_text_and_all_else_for_itself() {
    assert!(matches("mount *.data.size", "mount /tmp.data.size"));
    assert!(matches("*", ""));
    assert!(matches("a*b*c", "abbc"));
    assert!(!matches("a*b*c", "acb"));
    assert!(!matches("kernel", "kernels"));
    assert!(!matches("", "kernel"));
}

#[test]
fn a_difference_is_allowed_only_with_all_that_its_rule_says() {
    assert!(is_allowed("any", "kernel", "6.1.0", "6.12.1"));
    assert!(!is_allowed("any", "status.CapEff", "00", "ff"));
    assert!(!is_allowed("any", "status.CapEff", NOTHING, "ff"));
    assert!(is_allowed("shared uts", "hostname", "any", "bulkhead"));
    assert!(!is_allowed("any", "hostname", "any", "bulkhead"));
    assert!(!is_allowed("any", "limits.Max processes", "5 5", "6 6"));
}

#[test]
fn every_rule_has_a_reason() {
    for (_, fact, .., why) in ALLOWED {
        assert!(why.len() > 10, "{fact}");
    }
}
