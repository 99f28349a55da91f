use super::*;

fn range(start: u64, end: u64) -> Range {
    Range::new(start, end).unwrap()
}

fn of(ranges: &[(u64, u64, Access)]) -> Ranges {
    Ranges(ranges.iter().map(|(start, end, access)| (range(*start, *end), *access)).collect())
}

const READ: Access = Access::Read;
const WRITE: Access = Access::Write;
const END: u64 = i64::MAX as u64;

#[test]
fn a_lock_replaces_what_there_was_of_its_range_and_neighbours_become_one() {
    let mut ranges = Ranges::default();
    ranges.set(range(10, 19), Some(READ));
    ranges.set(range(20, 29), Some(READ));
    assert_eq!(ranges, of(&[(10, 29, READ)]));
    ranges.set(range(15, 16), Some(WRITE));
    assert_eq!(ranges, of(&[(10, 14, READ), (15, 16, WRITE), (17, 29, READ)]));
    ranges.set(range(0, END), None);
    assert_eq!(ranges.len(), 0);
    ranges.set(range(0, END), Some(WRITE));
    ranges.set(range(5, 5), None);
    assert_eq!(ranges, of(&[(0, 4, WRITE), (6, END, WRITE)]));
    ranges.set(range(5, 5), Some(WRITE));
    assert_eq!(ranges, of(&[(0, END, WRITE)]));
}

#[test]
fn readers_are_in_nobodys_way_but_a_writers() {
    let ranges = of(&[(10, 19, READ), (30, 39, WRITE)]);
    for (asked, access, conflict) in [
        (range(0, 9), WRITE, None),
        (range(0, 10), WRITE, Some((range(10, 19), READ))),
        (range(0, 29), READ, None),
        (range(19, 30), READ, Some((range(30, 39), WRITE))),
        (range(40, END), WRITE, None),
    ] {
        assert_eq!(ranges.conflict(asked, access), conflict, "{asked:?} {access:?}");
    }
}

/// Against a table with a cell for each byte.
#[test]
fn ranges_are_what_a_table_of_bytes_says() {
    const BYTES: u64 = 40;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut ranges = Ranges::default();
    let mut table = [None; BYTES as usize];
    for _ in 0..20_000 {
        let (one, other) = (random(BYTES), random(BYTES));
        let (start, end) = (one.min(other), one.max(other));
        let access = [None, Some(READ), Some(WRITE)][random(3) as usize];
        ranges.set(range(start, end), access);
        table[start as usize..=end as usize].fill(access);
        let mut seen = [None; BYTES as usize];
        let mut last = None;
        for (range, access) in ranges.iter() {
            assert!(
                last.is_none_or(|(end, of)| range.start() > end + 1 || (range.start() > end && of != access))
            );
            seen[range.start() as usize..=range.end() as usize].fill(Some(access));
            last = Some((range.end(), access));
        }
        assert_eq!(seen, table);
        let (one, other) = (random(BYTES), random(BYTES));
        let (start, end) = (one.min(other), one.max(other));
        let cells = &table[start as usize..=end as usize];
        assert_eq!(ranges.conflict(range(start, end), READ).is_some(), cells.contains(&Some(WRITE)));
        assert_eq!(ranges.conflict(range(start, end), WRITE).is_some(), cells.iter().any(Option::is_some));
    }
}
