use super::*;

#[test]
fn code_that_is_mapped_ahead_still_runs() {
    map_own_code();
    map_own_code();
}
