//! The guest's half of the device tests: a server for vsock streams, and a user of the shared directory.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            fs::{FileExt, MetadataExt, PermissionsExt, symlink},
            net::UnixStream,
        },
    },
    thread,
    time::Instant,
};

use bulkhead_protocol::ports::{AGENT, HOST_CID, STDIO};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::guest::say;

const SHARE: &str = "/mnt";

/// The bytes at `from` of an endless stream without a short period.
pub(crate) fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

// ---- vsock ----

fn address(cid: u64, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zero is a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid as u32;
    address.svm_port = port;
    address
}

fn socket() -> OwnedFd {
    // SAFETY: no pointers; the result is checked and owned by nobody else.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "vsock: {}", io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

type AddressCall = unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32;

fn with_address(call: AddressCall, socket: &OwnedFd, cid: u64, port: u32) -> io::Result<()> {
    let address = address(cid, port);
    // SAFETY: the address is live and its length is right; connect and bind only read it.
    let done = unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn connect(port: u32) -> io::Result<UnixStream> {
    let socket = socket();
    with_address(libc::connect, &socket, HOST_CID, port)?;
    Ok(socket.into())
}

/// Accepts streams until one says "quit"; each begins with a line that says what to do.
pub(crate) fn vsock(console: &mut File) {
    let listener = socket();
    with_address(libc::bind, &listener, u32::MAX.into(), STDIO).unwrap();
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 128) }, 0);
    say(console, &format!("other port {:?}", connect(22).unwrap_err().kind()));
    let mut control = connect(AGENT).unwrap();
    control.write_all(b"greeting\n").unwrap();
    say(console, &format!("port again {:?}", connect(AGENT).unwrap_err().kind()));
    loop {
        // SAFETY: null means that the peer's address is not wanted.
        let fd = unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
        assert!(fd >= 0, "accept: {}", io::Error::last_os_error());
        // SAFETY: just accepted, owned by nobody else.
        let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
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

fn serve(mut reader: BufReader<UnixStream>, command: &str) {
    let mut stream = reader.get_ref().try_clone().unwrap();
    match command.split_once(' ').unwrap_or((command, "")) {
        ("echo", _) => {
            io::copy(&mut reader, &mut stream).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
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

pub(crate) fn fs(console: &mut File) {
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
    rustix::fs::setxattr(path("dir/moved"), "user.colour", b"blue", rustix::fs::XattrFlags::empty()).unwrap();
    let mut value = [0; 8];
    let len = rustix::fs::getxattr(path("hard"), "user.colour", &mut value).unwrap();
    assert_eq!(&value[..len], b"blue");
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
        if number % 2 == 0 {
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
    let all = changes.iter().all(|change| {
        change.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
    });
    say(console, &format!("refused {all} {changes:?}"));
}
