//! The guest's half of the device tests: a server for vsock streams, and a user of the shared directory.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    thread,
    time::Instant,
};

use bulkhead_protocol::ports::{AGENT, STDIO};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    net::{Shutdown, shutdown},
};

use crate::{
    report::say,
    vsock::{accept, connect, listen},
};

const SHARE: &str = "/mnt";

/// The bytes at `from` of an endless stream without a short period.
pub(crate) fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

// ---- vsock ----

/// Accepts streams until one says "quit"; each begins with a line that says what to do.
pub(crate) fn stream_server(console: &mut File) {
    let listener = listen(STDIO).unwrap();
    say(console, &format!("other port {:?}", connect(22).unwrap_err().kind()));
    let mut control = connect(AGENT).unwrap();
    control.write_all(b"greeting\n").unwrap();
    say(console, &format!("port again {:?}", connect(AGENT).unwrap_err().kind()));
    loop {
        let stream = accept(&listener).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line == "quit\n" {
            break;
        }
        thread::spawn(move || serve(reader, line.trim_end()));
    }
    drop(control);
}

fn serve(mut reader: BufReader<File>, command: &str) {
    let mut stream = reader.get_ref().try_clone().unwrap();
    match command.split_once(' ').unwrap_or((command, "")) {
        ("echo", _) => {
            io::copy(&mut reader, &mut stream).unwrap();
            shutdown(&stream, Shutdown::Write).unwrap();
        }
        // As a process whose output is all there is to it: writes, and is gone.
        ("flood", count) => {
            let count: u64 = count.parse().unwrap();
            let mut sent = 0;
            while sent < count {
                let chunk = pattern(sent, (count - sent).min(256 << 10) as usize);
                if stream.write_all(&chunk).is_err() {
                    return;
                }
                sent += chunk.len() as u64;
            }
        }
        // The same bytes again and again: nothing but the device costs time.
        ("zeros", count) => {
            let mut left: usize = count.parse().unwrap();
            let zeros = vec![0; 256 << 10];
            while left > 0 {
                let chunk = left.min(zeros.len());
                stream.write_all(&zeros[..chunk]).unwrap();
                left -= chunk;
            }
        }
        ("count", _) => {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            let right = bytes == pattern(0, bytes.len());
            writeln!(stream, "{} {right}", bytes.len()).unwrap();
        }
        other => panic!("{other:?}"),
    }
}

// ---- fs ----

fn mount_share() -> rustix::io::Result<()> {
    fs::create_dir_all(SHARE).unwrap();
    mount("share", SHARE, "virtiofs", MountFlags::empty(), None)
}

fn path(name: &str) -> String {
    format!("{SHARE}/{name}")
}

pub(crate) fn files(console: &mut File) {
    mount_share().unwrap();
    say(console, &format!("read {}", fs::read_to_string(path("from-host")).unwrap()));
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("dir/file"), pattern(0, 3_000_000)).unwrap();
    fs::rename(path("dir/file"), path("dir/moved")).unwrap();
    fs::set_permissions(path("dir/moved"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(path("dir/moved"), Some(1000), Some(1001)).unwrap();
    symlink("dir/moved", path("link")).unwrap();
    fs::hard_link(path("dir/moved"), path("hard")).unwrap();
    assert_eq!(fs::metadata(path("link")).unwrap().nlink(), 2);
    assert_eq!(fs::read(path("link")).unwrap(), pattern(0, 3_000_000));
    // File capabilities, as images have them: cap_net_bind_service in the permitted set, revision 2.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path("dir/moved"), "security.capability", &capability, flags).unwrap();
    let mut value = [0; 64];
    let len = rustix::fs::getxattr(path("hard"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..len], capability);
    say(console, "basic done");

    let whiteout = rustix::fs::FileType::CharacterDevice;
    let here = rustix::fs::CWD;
    rustix::fs::mknodat(here, path("whiteout"), whiteout, 0o600.into(), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let refused = rustix::fs::mknodat(here, path("null"), whiteout, 0o600.into(), null).unwrap_err();
    say(console, &format!("device {refused:?}"));

    // Syncs in some threads while others create and remove: nothing may wait for ever.
    let threads: Vec<_> = (0..4).map(|number| thread::spawn(move || churn(number))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    say(console, &format!("left {}", fs::read_dir(SHARE).unwrap().count()));
    speed(console);

    // A second mount starts over with the same device.
    unmount(SHARE, UnmountFlags::empty()).unwrap();
    mount_share().unwrap();
    say(console, &format!("again {}", fs::read_to_string(path("from-host")).unwrap()));
    unmount(SHARE, UnmountFlags::empty()).unwrap();
}

fn churn(number: u32) {
    for round in 0..25 {
        let name = path(&format!("churn-{number}-{round}"));
        let file = File::create(&name).unwrap();
        file.write_all_at(&[number as u8; 5000], 0).unwrap();
        if number.is_multiple_of(2) {
            file.sync_all().unwrap();
        }
        assert_eq!(fs::read(&name).unwrap(), [number as u8; 5000]);
        fs::remove_file(&name).unwrap();
    }
}

fn speed(console: &mut File) {
    const SIZE: usize = 16 << 20;
    let started = Instant::now();
    fs::write(path("big"), vec![1; SIZE]).unwrap();
    let written = started.elapsed();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let started = Instant::now();
    assert_eq!(fs::read(path("big")).unwrap().len(), SIZE);
    say(console, &format!("speed 16 MiB written in {written:?}, read in {:?}", started.elapsed()));
}

pub(crate) fn read_only(console: &mut File) {
    // Mounted without MS_RDONLY: the guest's own kernel does not stand in the way.
    mount_share().unwrap();
    say(console, &format!("read {}", fs::read_to_string(path("from-host")).unwrap()));
    let changes = [
        fs::write(path("from-host"), "changed"),
        fs::write(path("new"), "made"),
        fs::create_dir(path("dir")),
        fs::remove_file(path("from-host")),
        fs::rename(path("from-host"), path("moved")),
        fs::set_permissions(path("from-host"), PermissionsExt::from_mode(0o777)),
        symlink("x", path("link")),
    ];
    let all = changes
        .iter()
        .all(|change| change.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem));
    say(console, &format!("refused {all} {changes:?}"));
}
