//! Containers made by `container-init` on this machine, looked at from inside: namespaces, mounts, devices, masks.

#[cfg(test)]
mod support;

use support::{End, host, spec};

#[tokio::test]
async fn a_program_runs_as_pid_1_with_its_streams_and_its_exit_code() {
    let Some(host) = host() else { return };
    let outcome = host.run(&spec(&["sh", "-c", "echo $$; echo err >&2; exit 42"])).await.unwrap();
    assert_eq!(outcome.end, End::Code(42), "{outcome:?}");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("1\n", "err\n"));
    host.assert_clean();
}
