use std::process::Stdio;

use super::*;

fn shell(script: &str) -> Output {
    // Open, with nothing in it.
    let mut command = Command::new("sh");
    Output::of(command.args(["-c", script]).stdin(Stdio::piped())).expect("start a shell")
}

#[test]
fn both_outputs_come_line_by_line_and_then_the_status() {
    let mut output = shell("echo one; echo two >&2; printf three; exit 7");
    let lines: Vec<String> = output.rest().collect();
    assert_eq!(lines, ["one", "two", "three"]);
    assert_eq!(output.end().expect("wait").code(), Some(7));
}

#[test]
fn a_silent_command_is_seen_as_such() {
    let mut output = shell("read line");
    assert_eq!(output.next(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    output.child.kill().expect("kill");
    assert_eq!(output.next(Duration::MAX), Err(RecvTimeoutError::Disconnected));
}
