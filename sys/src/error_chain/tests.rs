use std::io;

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("create {id}")]
struct Step {
    id: &'static str,
    source: io::Error,
}

#[test]
fn causes_follow_their_step() {
    let error = Step { id: "web", source: io::Error::from_raw_os_error(libc::ENOENT) };
    assert_eq!(chain(&error), "create web: No such file or directory (os error 2)");
    assert_eq!(chain(&io::Error::other("alone")), "alone");
}
