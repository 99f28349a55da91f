use super::lines;

#[test]
fn columns_are_as_wide_as_they_must_be_and_no_narrower_than_20() {
    let rows = [["ID", "NAME", "LAST"], ["1", "a name of 24 characters.", "end"]];
    let rows = rows.map(|row| row.map(str::to_owned));
    assert_eq!(
        lines(&rows),
        [format!("{:20}{:27}LAST", "ID", "NAME"), format!("{:20}{:27}end", "1", "a name of 24 characters.")]
    );
}
