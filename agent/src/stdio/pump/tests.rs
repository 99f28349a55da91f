use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
    thread,
};

use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// A pipe to write to as the process does, the host's end of its stream, and the pump between them.
struct Rig {
    process: std::fs::File,
    host: UnixStream,
    output: Output,
}

fn rig() -> Rig {
    let (ours, process) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (host, stream) = UnixStream::pair().unwrap();
    host.set_read_timeout(Some(DEADLINE)).unwrap();
    Rig { process: process.into(), host, output: Output::start(endpoint(ours), endpoint(stream.into())) }
}

fn endpoint(fd: OwnedFd) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(fd).unwrap())
}

/// Reads to the end in a thread, as the host does beside the agent.
fn read_all(mut host: UnixStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        host.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

async fn joined<T: Send + 'static>(thread: thread::JoinHandle<T>) -> T {
    let join = tokio::task::spawn_blocking(move || thread.join().unwrap());
    timeout(DEADLINE, join).await.expect("the stream ends").unwrap()
}

/// Bytes that tell their place, so that a lost or doubled one shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
}

#[tokio::test]
async fn a_process_that_writes_and_exits_at_once_loses_nothing_at_any_size() {
    for len in [0, 1, 4095, 4096, 65_535, 65_536, 65_537, 200_000, 1 << 20] {
        let Rig { mut process, host, output } = rig();
        let host = read_all(host);
        let written = pattern(len);
        let bytes = written.clone();
        let process = tokio::task::spawn_blocking(move || process.write_all(&bytes).map(|()| process));
        let held_by_a_grandchild = process.await.unwrap().unwrap();
        assert_eq!(output.finish_pipe().await, len as u64);
        assert_eq!(joined(host).await, written);
        drop(held_by_a_grandchild);
    }
}

#[tokio::test]
async fn a_grandchild_that_keeps_writing_neither_delays_the_end_nor_adds_to_it() {
    let Rig { mut process, host, output } = rig();
    let host = read_all(host);
    process.write_all(b"before").unwrap();
    let total = output.finish_pipe().await;
    process.write_all(b"after").unwrap();
    assert_eq!((total, joined(host).await), (6, b"before".to_vec()));
}

#[tokio::test]
async fn an_exit_is_counted_without_a_reader_and_delivered_when_there_is_one() {
    let Rig { mut process, host, output } = rig();
    rustix::io::ioctl_fionbio(&process, true).unwrap();
    let chunk = pattern(4096);
    let mut written: Vec<u8> = Vec::new();
    // Until neither the stream, nor the pump, nor the pipe takes more.
    let mut idle = 0;
    while idle < 100 {
        match process.write(&chunk) {
            Ok(count) => {
                written.extend(&chunk[..count]);
                idle = 0;
            }
            Err(_) => {
                idle += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    let total = timeout(DEADLINE, output.finish_pipe()).await.expect("counted at once");
    assert_eq!(total, written.len() as u64);
    assert_eq!(joined(read_all(host)).await, written);
}

#[tokio::test]
async fn a_host_that_goes_away_gives_the_process_a_broken_pipe() {
    let Rig { mut process, host, output } = rig();
    drop(host);
    process.write_all(b"lost").unwrap();
    let sent = output.pump.await.unwrap();
    assert_eq!(sent, 0);
    assert_eq!(process.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn bytes_that_somebody_else_read_from_the_pipe_do_not_keep_the_stream_open() {
    let (ours, process) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (host, stream) = UnixStream::pair().unwrap();
    let thief = ours.try_clone().unwrap();
    std::fs::File::from(process).write_all(b"stolen").unwrap();
    let output = Output::start(endpoint(ours), endpoint(stream.into()));
    let total = output.finish_pipe().await;
    // The pump has not run yet: this task has not waited.
    rustix::io::read(&thief, &mut [0; 6]).unwrap();
    assert_eq!((total, joined(read_all(host)).await), (6, Vec::new()));
}

#[tokio::test]
async fn the_hosts_half_close_closes_stdin_after_all_its_bytes() {
    let (process, ours) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (mut host, stream) = UnixStream::pair().unwrap();
    let input = tokio::spawn(copy_input(endpoint(stream.into()), endpoint(ours)));
    let bytes = pattern(300_000);
    let sent = bytes.clone();
    let writer = thread::spawn(move || {
        host.write_all(&sent).unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        host
    });
    let reader = thread::spawn(move || {
        let mut read = Vec::new();
        std::fs::File::from(process).read_to_end(&mut read).unwrap();
        read
    });
    assert_eq!(joined(reader).await, bytes);
    drop(joined(writer).await);
    timeout(DEADLINE, input).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_terminal_is_read_empty_before_its_exit_is_announced() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut mode = rustix::termios::tcgetattr(&pty.slave).unwrap();
    mode.make_raw();
    rustix::termios::tcsetattr(&pty.slave, rustix::termios::OptionalActions::Now, &mode).unwrap();
    let (host, stream) = UnixStream::pair().unwrap();
    let output = Output::start(endpoint(pty.master), endpoint(stream.into()));
    let host = read_all(host);
    let bytes = pattern(50_000);
    let written = bytes.clone();
    let process = thread::spawn(move || std::fs::File::from(pty.slave).write_all(&written).unwrap());
    joined(process).await;
    assert_eq!(output.finish_tty().await, 50_000);
    assert_eq!(joined(host).await, bytes);
}
