use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    time::Duration,
};

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn wait(progress: &mut watch::Receiver<Progress>, until: impl FnMut(&Progress) -> bool) -> Progress {
    let done = async { tokio::time::timeout(Duration::from_secs(20), progress.wait_for(until)).await };
    *runtime().block_on(done).unwrap().unwrap()
}

/// Bytes in which a lost, doubled or swapped block shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn output_arrives_byte_for_byte_though_its_reader_is_slow_and_its_end_non_blocking() {
    let bytes = pattern(1 << 20);
    let (guest, host) = UnixStream::pair().unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&write, true).unwrap();
    let mut progress = outward(host, OwnedFd::from(write)).unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || (&guest).write_all(&sent).map(|()| guest));
    let mut got = Vec::new();
    let mut chunk = [0; 777];
    while got.len() < bytes.len() {
        let n = read.read(&mut chunk).unwrap();
        got.extend_from_slice(&chunk[..n]);
    }
    assert!(got == bytes);
    drop(writer.join().unwrap().unwrap());
    let end = wait(&mut progress, |p| p.ended);
    assert_eq!(end.delivered, bytes.len() as u64);
}

#[test]
fn progress_counts_before_the_end_of_the_stream() {
    let (mut guest, host) = UnixStream::pair().unwrap();
    let (_read, write) = std::io::pipe().unwrap();
    let mut progress = outward(host, OwnedFd::from(write)).unwrap();
    guest.write_all(b"hello").unwrap();
    let now = wait(&mut progress, |p| p.delivered >= 5);
    assert_eq!(now, Progress { delivered: 5, ended: false });
}

#[test]
fn when_nobody_reads_the_output_the_writer_in_the_guest_learns_it() {
    let (mut guest, host) = UnixStream::pair().unwrap();
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let mut progress = outward(host, OwnedFd::from(write)).unwrap();
    guest.write_all(b"x").unwrap();
    assert_eq!(wait(&mut progress, |p| p.ended).delivered, 0);
    assert!(guest.write_all(b"y").is_err());
}

#[test]
fn the_end_of_input_is_a_half_close_and_output_still_flows() {
    let (mut guest, host) = UnixStream::pair().unwrap();
    let (read, mut write) = std::io::pipe().unwrap();
    let bytes = pattern(300_000);
    inward(OwnedFd::from(read), host.try_clone().unwrap(), true).unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || write.write_all(&sent).unwrap());
    let mut got = Vec::new();
    guest.read_to_end(&mut got).unwrap();
    assert!(got == bytes);
    writer.join().unwrap();
    guest.write_all(b"still here").unwrap();
    let mut answer = [0; 10];
    (&host).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still here");
}
