use super::*;

#[test]
fn how_a_command_ended_is_what_the_error_stream_says() {
    assert!(ended("").is_ok());
    assert!(ended(r#"{"metadata": {}, "status": "Success"}"#).is_ok());
    let coded = r#"{"metadata": {}, "status": "Failure", "message": "command terminated with non-zero exit code",
        "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}"#;
    assert_eq!(ended(coded).unwrap_err().to_string(), "command terminated with exit code 7");
    let failed = r#"{"status": "Failure", "message": "no such container", "reason": "InternalError"}"#;
    assert_eq!(ended(failed).unwrap_err().to_string(), "error executing command: no such container");
    assert!(matches!(ended("no JSON"), Err(StreamsError::Status { .. })));
}
