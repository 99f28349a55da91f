use std::path::Path;

use super::*;
use crate::cli::tests::context;

fn generate(dir: &Path) -> Result<u8, Error> {
    Args { bundle: dir.to_owned() }.run(&context())
}

#[test]
fn an_existing_config_json_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "mine").unwrap();
    let error = generate(dir.path()).unwrap_err();
    assert!(error.chain().ends_with("config.json exists") && error.hint().is_some());
    assert_eq!(std::fs::read_to_string(dir.path().join("config.json")).unwrap(), "mine");
}

#[test]
fn a_missing_directory_is_named() {
    let chain = generate(Path::new("/nonexistent")).unwrap_err().chain();
    assert_eq!(chain, "create /nonexistent/config.json: No such file or directory (os error 2)");
}
