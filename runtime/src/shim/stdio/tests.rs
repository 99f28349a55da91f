use std::io::{Read as _, Write as _};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{
    super::process::{Held, Process},
    *,
};
use crate::store;

const OWNER: Owner<'_> = Owner { container: "web", namespace: "test" };

/// A fifo for input, its process's end and what feeds it.
fn fed(directory: &Path) -> (String, File, Input) {
    let stdin = fifo(directory, "in");
    let opened = open(&Asked { stdin: stdin.clone(), ..Asked::default() }, OWNER).unwrap();
    (stdin, opened.streams.stdin.unwrap().into(), opened.input.unwrap())
}

fn client(stdin: &str, says: &[u8]) -> File {
    let mut client = OpenOptions::new().write(true).open(stdin).unwrap();
    client.write_all(says).unwrap();
    client
}

fn fifo(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn input_outlives_a_client_that_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, mut read, mut input) = fed(directory.path());
    input.hold();
    drop(client(&stdin, b"hello "));
    let mut first = [0; 6];
    read.read_exact(&mut first).unwrap();
    // As a containerd that was started again.
    let second = client(&stdin, b"again");
    input.close();
    drop(second);
    let mut rest = String::new();
    read.read_to_string(&mut rest).unwrap();
    assert_eq!((&first, &*rest), (b"hello ", "again"));
}

#[test]
fn input_that_ends_before_its_process_is_there_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, mut read, mut input) = fed(directory.path());
    // More than the pipe holds, so that the end is not taken yet. By a program, of whose descriptor no child of another test has a
    // copy.
    let mut client = std::process::Command::new("sh");
    client.args(["-c", "head -c 102400 /dev/zero >\"$0\"", &stdin]);
    assert!(client.status().unwrap().success());
    input.hold();
    let mut all = Vec::new();
    read.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 100 << 10);
}

#[test]
fn input_that_was_closed_before_its_process_is_there_ends_with_its_client() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, mut read, input) = fed(directory.path());
    let client = client(&stdin, b"last");
    let process = Process::new(Asked::default());
    process.close_input();
    process.is_made(store::Process::ended(1), Held { input: Some(input), ..Held::default() });
    drop(client);
    let mut all = String::new();
    read.read_to_string(&mut all).unwrap();
    assert_eq!(all, "last");
}

#[test]
fn a_client_sees_that_its_process_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, read, mut input) = fed(directory.path());
    input.hold();
    let mut client = client(&stdin, b"x");
    drop(read);
    let (done, written) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(client.write_all(&vec![b'x'; 1 << 20])));
    let written = written.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn all_input_comes_though_it_was_closed_before_it_was_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, mut read, mut input) = fed(directory.path());
    input.hold();
    // More than the fifo and the pipe hold.
    let says = vec![b'x'; 1 << 20];
    let early = client(&stdin, b"y");
    input.close();
    std::thread::scope(|scope| {
        scope.spawn(|| drop((client(&stdin, &says), early)));
        let mut all = Vec::new();
        read.read_to_end(&mut all).unwrap();
        assert_eq!((all.len(), all.first()), (says.len() + 1, Some(&b'y')));
    });
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
