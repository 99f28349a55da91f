//! The tests of vsock and fs, in a booted guest: what its kernel's own drivers make of the devices.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    ports,
    vmm::{Device, Fd, GuestExit, GuestPort, Slot},
};

use crate::{
    guest_devices::pattern,
    host::{FIRST_FD, Spec, Vmm, boot, spec},
};

macro_rules! tests {
    ($($name:ident),* $(,)?) => { pub(crate) const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*]; };
}

tests![
    vsock_streams_are_byte_exact_in_both_directions,
    vsock_delivers_all_of_many_fast_exits,
    vsock_keeps_a_flood_back_for_a_slow_reader,
    fs_serves_a_guests_files,
    fs_that_is_read_only_refuses_a_guest_that_mounts_it_writable,
];

/// A machine with a vsock device, the host's end of its control port, and the way to open streams.
struct Vsock {
    vmm: Vmm,
    control: UnixStream,
    path: PathBuf,
    _machine: Spec,
    _directory: tempfile::TempDir,
}

impl Vsock {
    fn boot() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let (control, port) = UnixStream::pair().unwrap();
        control.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let ports = vec![GuestPort { port: ports::AGENT, socket: Fd(FIRST_FD + 1) }];
        let device = Device::Vsock { listener: Fd(FIRST_FD), ports };
        let fds: Vec<OwnedFd> = vec![listener.into(), port.into()];
        let mut machine =
            Spec { devices: vec![(Slot(1), device)], fds, vcpus: 2, max_vcpus: 2, ..spec("stream-server") };
        let vmm = boot(&machine).unwrap();
        // The guest's end must be the only one, or its close would not show.
        machine.fds.clear();
        let mut vsock = Self { vmm, control, path, _machine: machine, _directory: directory };
        assert_eq!(vsock.vmm.hear("other port"), "ConnectionReset");
        let mut greeting = String::new();
        BufReader::new(&vsock.control).read_line(&mut greeting).unwrap();
        assert_eq!(greeting, "greeting\n");
        assert_eq!(vsock.vmm.hear("port again"), "ConnectionReset");
        vsock
    }

    fn connect(&self, port: u32) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        writeln!(stream, "CONNECT {port}").unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            answer.push(byte[0]);
        }
        let port = String::from_utf8(answer).unwrap().strip_prefix("OK ")?.parse::<u32>().unwrap();
        assert!(port >= 1 << 30);
        Some(stream)
    }

    fn ask(&self, command: &str) -> UnixStream {
        let mut stream =
            self.connect(ports::STDIO).unwrap_or_else(|| panic!("{command}: the stream was refused"));
        writeln!(stream, "{command}").unwrap();
        stream
    }

    fn count(&mut self, counter: &str) -> u64 {
        let metrics = self.vmm.metrics();
        metrics.into_iter().find(|(name, _)| name == &format!("vsock.{counter}")).unwrap().1
    }

    fn quit(mut self) {
        // Before the end: a machine that is over has no counters.
        assert_eq!(self.count("violations"), 0);
        assert_eq!(self.count("bad_chains"), 0);
        let _quit = self.ask("quit");
        assert_eq!(self.control.read(&mut [0]).unwrap(), 0, "the guest's end closes the port");
        assert_eq!(self.vmm.exit().0, GuestExit::Reset);
    }
}

fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn vsock_streams_are_byte_exact_in_both_directions() {
    let vsock = Vsock::boot();
    assert!(vsock.connect(9).is_none(), "nobody listens there");

    let bytes = pattern(0, 3 << 20);
    let mut stream = vsock.ask("echo");
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_all(&mut stream) == bytes);
    writer.join().unwrap();

    // The half-close is the end of the guest's input, and its answer still comes.
    let mut stream = vsock.ask("count");
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), format!("{} true\n", bytes.len()).into_bytes());

    let started = Instant::now();
    let mut stream = vsock.ask("zeros 33554432");
    assert_eq!(read_all(&mut stream).len(), 32 << 20);
    println!("  32 MiB from the guest in {:?}", started.elapsed());
    vsock.quit();
}

fn vsock_delivers_all_of_many_fast_exits() {
    let mut vsock = Vsock::boot();
    for round in 0..100_usize {
        let len = if round % 5 == 0 { 0 } else { round * 7919 % 200_000 };
        let mut stream = vsock.ask(&format!("flood {len}"));
        assert!(read_all(&mut stream) == pattern(0, len), "round {round}");
    }
    // All at once, read one after the other.
    let streams: Vec<_> =
        (0..20).map(|round| (round, vsock.ask(&format!("flood {}", round * 20_000)))).collect();
    for (round, mut stream) in streams {
        assert!(read_all(&mut stream) == pattern(0, round * 20_000), "stream {round}");
    }
    assert_eq!(vsock.count("opened"), 120);
    vsock.quit();
}

fn vsock_keeps_a_flood_back_for_a_slow_reader() {
    let mut vsock = Vsock::boot();
    let mut flood = vsock.ask("flood 8000000");
    // Another stream is served while the first one's reader sleeps.
    let mut other = vsock.ask("flood 1000000");
    assert!(read_all(&mut other) == pattern(0, 1_000_000));
    let before = vsock.count("bytes_from_guest");
    assert!(before < 2 << 20, "{before} bytes came although nobody reads");
    assert!(read_all(&mut flood) == pattern(0, 8_000_000));
    // A reader that leaves early ends the writer.
    drop(vsock.ask("flood 100000000"));
    vsock.quit();
}

/// A booted machine with one fs device; the spec holds the share.
fn share_machine(scenario: &str, read_only: bool) -> (Vmm, Spec) {
    let device = Device::Fs { tag: "share".into(), read_only, strip_setuid: false, exclusive_rootfs: true };
    let machine = Spec { devices: vec![(Slot(2), device)], vcpus: 2, max_vcpus: 2, ..spec(scenario) };
    fs::write(machine.share.path().join("from-host"), "hello").unwrap();
    (boot(&machine).unwrap(), machine)
}

fn fs_serves_a_guests_files() {
    let (mut vmm, machine) = share_machine("files", false);
    let share = machine.share.path();
    assert_eq!(vmm.hear("read"), "hello");
    vmm.hear("basic done");
    let moved = share.join("dir/moved");
    let metadata = fs::metadata(&moved).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.nlink()), (1000, 1001, 2));
    assert!(fs::read(&moved).unwrap() == pattern(0, 3_000_000));
    assert_eq!(fs::read_link(share.join("link")).unwrap(), PathBuf::from("dir/moved"));
    assert_eq!(
        vmm.hear("device"),
        "Os { code: 1, kind: PermissionDenied, message: \"Operation not permitted\" }"
    );
    assert_eq!(fs::metadata(share.join("whiteout")).unwrap().rdev(), 0);
    assert_eq!(vmm.hear("left"), "5");
    println!("  {}", vmm.hear("speed"));
    assert_eq!(vmm.hear("again"), "hello");
    let metrics = vmm.metrics();
    println!("  {:?}", metrics.iter().filter(|(name, _)| name.starts_with("fs.")).collect::<Vec<_>>());
    assert_eq!(vmm.exit().0, GuestExit::Reset);
}

fn fs_that_is_read_only_refuses_a_guest_that_mounts_it_writable() {
    let (mut vmm, machine) = share_machine("read-only", true);
    assert_eq!(vmm.hear("read"), "hello");
    let refused = vmm.hear("refused");
    assert!(refused.starts_with("true"), "{refused}");
    assert_eq!(vmm.exit().0, GuestExit::Reset);
    assert_eq!(fs::read_dir(machine.share.path()).unwrap().count(), 1);
}
