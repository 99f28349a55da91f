use super::*;

#[test]
fn a_command_name_cannot_steer_the_terminal() {
    let process = Process {
        pid: 7,
        command: "sh\x1b[2J\nroot".into(),
        state: "S".into(),
        cpu_ticks: 366_100,
        rss_bytes: 4096,
        ..Default::default()
    };
    let table = table(&[process]);
    assert_eq!(table.lines().count(), 2);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["0", "7", "0", "S", "4K", "01:01:01", "sh?[2J?root"]);
}
