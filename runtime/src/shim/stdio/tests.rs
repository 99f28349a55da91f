use std::io::{Read as _, Write as _};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

const OWNER: Owner<'_> = Owner { container: "web", namespace: "test" };

/// A fifo for input, its process's end and what feeds it, and a client that has written to it.
fn fed(directory: &Path) -> (File, Option<Pumps>, File) {
    let stdin = fifo(directory, "in");
    let opened = open(&Asked { stdin: stdin.clone(), ..Asked::default() }, OWNER).unwrap();
    let mut client = OpenOptions::new().write(true).open(&stdin).unwrap();
    client.write_all(b"hello").unwrap();
    (opened.streams.stdin.unwrap().into(), opened.input, client)
}

fn fifo(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn input_waits_for_a_client_and_ends_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut read, _input, client) = fed(directory.path());
    drop(client);
    let mut all = String::new();
    read.read_to_string(&mut all).unwrap();
    assert_eq!(all, "hello");
}

#[test]
fn closing_the_input_ends_it_though_a_client_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut read, input, _client) = fed(directory.path());
    drop(input);
    let mut all = String::new();
    read.read_to_string(&mut all).unwrap();
    assert_eq!(all, "hello");
}

#[test]
fn output_waits_in_a_fifo_for_a_client_that_comes_late() {
    let directory = tempfile::tempdir().unwrap();
    let stdout = fifo(directory.path(), "out");
    let asked = Asked { stdout: format!("fifo://{stdout}"), ..Asked::default() };
    let streams = open(&asked, OWNER).unwrap().streams;
    let mut process = File::from(streams.stdout.unwrap());
    process.write_all(b"early").unwrap();
    let mut client = File::open(&stdout).unwrap();
    drop(process);
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap_or_default();
    // The last writer closed before the client read: what was written is still there.
    assert_eq!(all, "early");
    assert!(streams.stderr.is_none());
}

#[test]
fn a_file_is_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    std::fs::write(&path, "before ").unwrap();
    let text = format!("file://{}", path.display());
    File::from(output(&text).unwrap().unwrap()).write_all(b"after").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before after");
}

#[test]
fn what_is_no_stream_is_refused() {
    assert!(matches!(output("http://host/x"), Err(StdioError::Scheme(_) | StdioError::Relative(_))));
    let logged = Asked { stdout: "binary:///nowhere/logger".into(), ..Asked::default() };
    assert!(matches!(open(&logged, OWNER), Err(StdioError::Logger { .. })));
    assert!(matches!(output("relative"), Err(StdioError::Relative(_))));
    assert!(matches!(output("/nowhere/fifo"), Err(StdioError::Open { .. })));
}

#[test]
fn the_output_of_a_process_is_kept_until_it_has_been_taken() {
    let directory = tempfile::tempdir().unwrap();
    let stdout = fifo(directory.path(), "out");
    let asked = Asked { stdout: stdout.clone(), ..Asked::default() };
    let Opened { streams, mut outputs, .. } = open(&asked, OWNER).unwrap();
    File::from(streams.stdout.unwrap()).write_all(b"kept").unwrap();
    assert!(!outputs.are_taken());
    let mut client = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(stdout).unwrap();
    let mut bytes = [0; 8];
    assert_eq!(client.read(&mut bytes).unwrap(), 4);
    assert!(outputs.are_taken());
    // The end of the stream.
    assert_eq!(client.read(&mut bytes).unwrap(), 0);
}
