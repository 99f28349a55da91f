use super::*;
use crate::stdio::pending::PendingError;

#[test]
fn streams_must_fit_the_kind_of_process() {
    let shared = Shared { reaper: Reaper::default(), streams: Arc::default(), layout: Layout::guest() };
    let token = Some("t".parse().unwrap());
    let tty = StdioRequest { token: token.clone(), wanted: Wanted { tty: true, ..Wanted::default() } };
    assert!(matches!(shared.wire(&tty, false), Err(SandboxError::WrongStreams)));
    let none = StdioRequest { token: None, wanted: Wanted::default() };
    assert!(matches!(shared.wire(&none, true), Err(SandboxError::WrongStreams)));
    let unopened = StdioRequest { token, wanted: Wanted { stdout: true, ..Wanted::default() } };
    assert!(matches!(
        shared.wire(&unopened, false),
        Err(SandboxError::Streams(PendingError::Missing { .. }))
    ));
}
