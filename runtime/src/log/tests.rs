use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn options(path: PathBuf, format: Format) -> LogOptions {
    LogOptions { path: Some(path), format, debug: false }
}

#[test]
fn a_json_line_has_level_msg_and_time() {
    let time = UNIX_EPOCH + Duration::from_secs(1);
    let line = line(Format::Json, time, Level::Error, "open \"x\"\nhint", &[("container", "web")]);
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"level": "error", "msg": "open \"x\"\nhint", "time": "1970-01-01T00:00:01.000000000Z",
                           "container": "web"})
    );
}

#[test]
fn a_text_line_quotes_its_message() {
    let line = line(Format::Text, UNIX_EPOCH, Level::Warning, "a \"b\"", &[]);
    assert_eq!(line, "time=\"1970-01-01T00:00:00.000000000Z\" level=warning msg=\"a \\\"b\\\"\"\n");
}

#[test]
fn the_file_is_appended_to_and_never_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "before\n").unwrap();
    for message in ["one", "two"] {
        Log::open(options(path.clone(), Format::Json)).unwrap().warn(message);
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], "before");
    assert!(lines[1].contains("\"msg\":\"one\"") && lines[2].contains("\"msg\":\"two\""));
}

#[test]
fn debug_entries_appear_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    Log::open(options(path.clone(), Format::Text)).unwrap().debug("hidden");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    Log::open(LogOptions { debug: true, ..options(path.clone(), Format::Text) }).unwrap().debug("shown");
    assert!(std::fs::read_to_string(&path).unwrap().contains("level=debug msg=\"shown\""));
}

#[test]
fn a_log_in_a_missing_directory_is_an_error() {
    let error = Log::open(options("/nonexistent/dir/log".into(), Format::Text)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
