use super::*;

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let rows = [["ID", "STATUS"], ["web", "running"], ["a-longer-id", ""]].map(|row| row.map(str::to_owned));
    assert_eq!(columns(&rows), "ID            STATUS\nweb           running\na-longer-id\n");
}
