//! What a guest gets away with: honest files work, dishonest names and messages do not.

mod acls;
mod callers;
mod exclusive;
mod guest;
mod locks;
mod strip;
mod unnamed;

use std::{fs, sync::Arc};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::guest::{Body, Driver, Guest, ROOT, init, init_with, message, op, proc_self_fd};
use super::*;
use crate::{devices::interrupt::Interrupt, event_loop::borrow, memory::Memory};

const BAD_NAMES: [&str; 8] = ["", ".", "..", "/", "a/b", "/etc/passwd", "../outside", "sub/../../outside"];

fn body() -> Body {
    Body::default()
}

#[test]
fn a_file_written_in_the_guest_is_a_file_of_the_host() {
    let mut guest = Guest::mount(false);
    let created =
        guest.call(op::CREATE, ROOT, body().u32(libc::O_RDWR as u32).u32(0o640).u32(0).u32(0).name("new"));
    let (node, handle) = (created.node(), created.created_handle());
    assert_eq!(guest.write(node, handle, 0, b"hello world").errno, 0);
    assert_eq!(guest.read(node, handle, 6, 100).body, b"world");
    assert_eq!(fs::read(guest.share().join("new")).unwrap(), b"hello world");
    fs::write(guest.share().join("from-host"), "x").unwrap();
    let node = guest.lookup("from-host");
    let handle = guest.open(node, libc::O_RDONLY).handle();
    assert_eq!(guest.read(node, handle, 0, 10).body, b"x");
}

#[test]
fn a_name_that_is_not_one_component_is_refused_by_every_operation() {
    let mut guest = Guest::mount(false);
    fs::write(guest.outside().join("outside"), "precious").unwrap();
    fs::write(guest.share().join("file"), "").unwrap();
    fs::create_dir(guest.share().join("sub")).unwrap();
    let file = guest.lookup("file");
    let mut refused = 0;
    for name in BAD_NAMES {
        let requests = [
            (op::LOOKUP, body().name(name)),
            (op::SYMLINK, body().name(name).name("target")),
            (op::MKNOD, body().u32(libc::S_IFREG | 0o600).u32(0).u32(0).u32(0).name(name)),
            (op::MKDIR, body().u32(0o700).u32(0).name(name)),
            (op::UNLINK, body().name(name)),
            (op::RMDIR, body().name(name)),
            (op::RENAME, body().u64(ROOT).name(name).name("good")),
            (op::RENAME, body().u64(ROOT).name("file").name(name)),
            (op::RENAME2, body().u64(ROOT).u32(0).u32(0).name(name).name("good")),
            (op::RENAME2, body().u64(ROOT).u32(0).u32(0).name("file").name(name)),
            (op::LINK, body().u64(file).name(name)),
            (op::CREATE, body().u32(libc::O_RDWR as u32).u32(0o600).u32(0).u32(0).name(name)),
        ];
        for (opcode, body) in requests {
            assert_eq!(
                guest.call(opcode, ROOT, body).errno,
                libc::EINVAL,
                "operation {opcode} with {name:?}"
            );
            refused += 1;
        }
    }
    assert_eq!(guest.metrics.bad_names.get(), refused);
    assert_eq!(fs::read(guest.outside().join("outside")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(guest.outside()).unwrap().count(), 2);
    assert_eq!(fs::read_dir(guest.share()).unwrap().count(), 2);
}

#[test]
fn names_with_dots_and_odd_bytes_are_names() {
    let mut guest = Guest::mount(false);
    for name in ["...", "..a", ".hidden", "a\\b", "\n", "ä"] {
        assert_eq!(guest.call(op::MKDIR, ROOT, body().u32(0o700).u32(0).name(name)).errno, 0, "{name:?}");
    }
    assert_eq!(fs::read_dir(guest.share()).unwrap().count(), 6);
}

#[test]
fn a_name_cut_by_a_zero_byte_is_no_message() {
    let mut guest = Guest::mount(false);
    for name in [&b"a\0b\0"[..], b"no end", b""] {
        let message = message(op::LOOKUP, ROOT, body().bytes(name));
        assert_eq!(guest.raw(&message, 4096), None);
    }
    assert_eq!(guest.metrics.bad_requests.get(), 3);
}

#[test]
fn a_symlink_may_point_anywhere_and_is_not_followed() {
    let mut guest = Guest::mount(false);
    let link = guest.call(op::SYMLINK, ROOT, body().name("link").name("../../../etc/passwd")).node();
    assert_ne!(guest.open(link, libc::O_RDONLY).errno, 0);
    assert_ne!(guest.call(op::LOOKUP, link, body().name("x")).errno, 0);
}

#[test]
fn a_read_only_device_refuses_every_change_and_serves_reads() {
    let mut guest = Guest::mount(true);
    fs::write(guest.share().join("file"), "content").unwrap();
    let file = guest.lookup("file");
    let handle = guest.open(file, libc::O_RDONLY).handle();
    assert_eq!(guest.read(file, handle, 0, 100).body, b"content");
    let setattr = body().u32(1 << 3).u32(0).bytes(&[0; 80]);
    let changes = [
        (op::SETATTR, file, setattr),
        (op::SYMLINK, ROOT, body().name("new").name("target")),
        (op::MKNOD, ROOT, body().u32(libc::S_IFREG | 0o600).u32(0).u32(0).u32(0).name("new")),
        (op::MKDIR, ROOT, body().u32(0o700).u32(0).name("new")),
        (op::UNLINK, ROOT, body().name("file")),
        (op::RMDIR, ROOT, body().name("file")),
        (op::RENAME, ROOT, body().u64(ROOT).name("file").name("new")),
        (op::RENAME2, ROOT, body().u64(ROOT).u32(0).u32(0).name("file").name("new")),
        (op::LINK, ROOT, body().u64(file).name("new")),
        (op::CREATE, ROOT, body().u32(0).u32(0o600).u32(0).u32(0).name("new")),
        (op::SETXATTR, file, body().u32(1).u32(0).name("user.x").bytes(b"y")),
        (op::REMOVEXATTR, file, body().name("user.x")),
        (op::FALLOCATE, file, body().u64(handle).u64(0).u64(100).u32(0).u32(0)),
        (op::COPY_FILE_RANGE, file, body().u64(handle).u64(0).u64(file).u64(handle).u64(10).u64(3).u64(0)),
        (op::TMPFILE, ROOT, body().u32(libc::O_RDWR as u32).u32(0o600).u32(0).u32(0).name("/")),
    ];
    for (opcode, node, body) in changes {
        assert_eq!(guest.call(opcode, node, body).errno, libc::EROFS, "operation {opcode}");
    }
    assert_eq!(guest.write(file, handle, 0, b"x").errno, libc::EROFS);
    let flags = [libc::O_WRONLY, libc::O_RDWR, 3, libc::O_TRUNC, libc::O_CREAT, libc::O_TMPFILE];
    for flags in flags {
        assert_eq!(guest.open(file, flags).errno, libc::EROFS, "flags {flags:#o}");
        let opendir = body().u32(flags as u32).u32(0);
        assert_eq!(guest.call(op::OPENDIR, ROOT, opendir).errno, libc::EROFS, "flags {flags:#o}");
    }
    let without_directory = body().u32((libc::O_TMPFILE & !libc::O_DIRECTORY) as u32).u32(0);
    assert_eq!(guest.call(op::OPENDIR, ROOT, without_directory).errno, libc::EROFS);
    assert_eq!(fs::read(guest.share().join("file")).unwrap(), b"content");
    assert_eq!(fs::read_dir(guest.share()).unwrap().count(), 1);
}

#[test]
fn what_no_library_call_stands_for_is_refused() {
    for read_only in [false, true] {
        let mut guest = Guest::mount(read_only);
        for opcode in [op::ACCESS, op::IOCTL, 37, 40, 41, 48, 49, 52, 4096] {
            let errno = guest.call(opcode, ROOT, body().bytes(&[0; 64])).errno;
            assert_eq!(errno, libc::ENOSYS, "operation {opcode}");
        }
    }
}

#[test]
fn device_nodes_are_refused_and_whiteouts_are_not() {
    let mut guest = Guest::mount(false);
    let null = (1 << 8) | 3;
    for (mode, rdev) in [(libc::S_IFCHR, null), (libc::S_IFBLK, 0), (libc::S_IFBLK, 8 << 8)] {
        let node = body().u32(mode | 0o600).u32(rdev).u32(0).u32(0).name("node");
        assert_eq!(guest.call(op::MKNOD, ROOT, node).errno, libc::EPERM);
    }
    let fifo = body().u32(libc::S_IFIFO | 0o600).u32(0).u32(0).u32(0).name("fifo");
    assert_eq!(guest.call(op::MKNOD, ROOT, fifo).errno, 0);
}

#[test]
fn offsets_beyond_what_a_file_has_are_refused() {
    let mut guest = Guest::mount(false);
    fs::write(guest.share().join("file"), "content").unwrap();
    let file = guest.lookup("file");
    let handle = guest.open(file, libc::O_RDWR).handle();
    for offset in [i64::MAX as u64 - 5, 1 << 63, u64::MAX] {
        assert_eq!(guest.read(file, handle, offset, 10).errno, libc::EINVAL);
        assert_eq!(guest.write(file, handle, offset, b"0123456789").errno, libc::EINVAL);
        let fallocate = body().u64(handle).u64(offset).u64(10).u32(0).u32(0);
        assert_eq!(guest.call(op::FALLOCATE, file, fallocate).errno, libc::EINVAL);
    }
    assert_eq!(guest.read(file, handle, 100, 10).body, b"");
}

#[test]
fn a_chain_without_room_for_a_reply_is_returned_empty_unless_it_needs_none() {
    let mut guest = Guest::mount(false);
    fs::write(guest.share().join("file"), "content").unwrap();
    let file = guest.lookup("file");
    let handle = guest.open(file, libc::O_RDONLY).handle();
    let read = body().u64(handle).u64(0).u32(0).u32(0).u64(0).u32(0).u32(0);
    for opcode in [op::READ, op::READDIR, op::GETATTR, op::DESTROY] {
        for room in [0, 1, 15] {
            assert_eq!(guest.raw(&message(opcode, file, read.clone()), room), None);
        }
    }
    assert_eq!(guest.metrics.bad_requests.get(), 12);
    // References go one by one and in a batch; a batch that lies about its size is no message.
    assert_eq!(guest.raw(&message(op::FORGET, 99, body().u64(1)), 0), None);
    let batch = body().u32(2).u32(0).u64(98).u64(1).u64(file).u64(1);
    assert_eq!(guest.raw(&message(op::BATCH_FORGET, 0, batch), 0), None);
    assert_eq!(guest.metrics.bad_requests.get(), 12);
    assert_eq!(guest.open(file, libc::O_RDONLY).errno, libc::ESTALE, "the last reference is gone");
    for count in [3, 70_000, u32::MAX] {
        let lie = body().u32(count).u32(0).u64(98).u64(1).u64(97).u64(1);
        assert_eq!(guest.raw(&message(op::BATCH_FORGET, 0, lie), 0), None);
    }
    assert_eq!(guest.metrics.bad_requests.get(), 15);
}

#[test]
fn what_waits_for_a_disk_is_told_by_its_header() {
    let mut guest = Guest::mount(false);
    for (opcode, slow) in [(op::FSYNC, true), (op::SYNCFS, true), (op::LOOKUP, false), (u32::MAX, false)] {
        assert_eq!(guest.is_slow(&message(opcode, ROOT, body())), slow, "{opcode}");
    }
    assert!(!guest.is_slow(&[0xff; 8]), "there is no header");
}

#[test]
fn beyond_its_budget_a_guest_gets_enfile_and_what_it_has_goes_on_working() {
    // The root is one of them.
    let mut guest = Guest::with_files(false, 4);
    for name in ["a", "b", "c", "d"] {
        fs::write(guest.share().join(name), name).unwrap();
    }
    let [a, b] = ["a", "b"].map(|name| guest.lookup(name));
    let handle = guest.open(a, libc::O_RDONLY).handle();
    let lookup = |guest: &mut Guest, name| guest.call(op::LOOKUP, ROOT, body().name(name)).errno;
    assert_eq!(lookup(&mut guest, "c"), libc::ENFILE);
    assert_eq!(guest.open(b, libc::O_RDONLY).errno, libc::ENFILE);
    assert_eq!(guest.read(a, handle, 0, 10).body, b"a");
    // One that it has already takes nothing.
    assert_eq!((lookup(&mut guest, "a"), guest.call(op::STATFS, ROOT, body()).errno), (0, 0));
    // Forgetting makes room.
    assert_eq!(guest.raw(&message(op::FORGET, b, body().u64(1)), 0), None);
    assert_eq!(lookup(&mut guest, "c"), 0);
    assert_eq!(lookup(&mut guest, "d"), libc::ENFILE);
}

#[test]
fn a_second_init_starts_over() {
    let mut guest = Guest::mount(false);
    fs::write(guest.share().join("file"), "content").unwrap();
    let file = guest.lookup("file");
    assert_eq!(guest.raw(&init(), 4096).unwrap().errno, 0);
    assert_eq!(guest.open(file, libc::O_RDONLY).errno, libc::ESTALE);
    assert_eq!(guest.call(op::STATFS, ROOT, body()).errno, 0);
}

#[test]
fn what_is_revoked_is_closed_and_stale_and_its_neighbours_are_not() {
    let mut guest = Guest::mount(false);
    for name in ["web", "db"] {
        fs::create_dir(guest.share().join(name)).unwrap();
        fs::write(guest.share().join(name).join("file"), name).unwrap();
    }
    let mut open = |name: &str| {
        let directory = guest.lookup(name);
        let file = guest.call(op::LOOKUP, directory, body().name("file")).node();
        let handle = guest.open(file, libc::O_RDWR).handle();
        let opened = guest.call(op::OPENDIR, directory, body().u32(0).u32(0)).handle();
        (directory, file, handle, opened)
    };
    let (web, db) = (open("web"), open("db"));
    let held = |guest: &Guest| {
        let open =
            fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        open.filter(|path| path.starts_with(guest.share().join("web"))).count()
    };
    assert_eq!(held(&guest), 4);
    guest.filter.revoke(b"web");
    assert_eq!(held(&guest), 0);
    let (directory, file, handle, opened) = web;
    assert_eq!(guest.read(file, handle, 0, 9).errno, libc::ESTALE);
    assert_eq!(guest.write(file, handle, 0, b"x").errno, libc::ESTALE);
    assert_eq!(guest.open(file, libc::O_RDONLY).errno, libc::ESTALE);
    let requests = [
        (op::LOOKUP, directory, body().name("file")),
        (op::GETATTR, file, body().bytes(&[0; 16])),
        (op::READDIR, directory, body().u64(opened).u64(0).u32(4096).u32(0).u64(0).u32(0).u32(0)),
        (op::LINK, ROOT, body().u64(file).name("link")),
        (op::RENAME, db.0, body().u64(directory).name("file").name("stolen")),
    ];
    for (opcode, node, body) in requests {
        assert_eq!(guest.call(opcode, node, body).errno, libc::ESTALE, "operation {opcode}");
    }
    assert_eq!(guest.read(db.1, db.2, 0, 9).body, b"db");
    // What has the name now is another container's.
    let again = guest.lookup("web");
    assert!(again != directory);
    let file = guest.call(op::LOOKUP, again, body().name("file")).node();
    assert_eq!(guest.open(file, libc::O_RDONLY).errno, 0);
}

#[test]
fn an_init_without_submounts_is_refused_and_so_is_one_too_many() {
    let mut guest = Guest::mount(false);
    for flags in [0, !(1 << 27 | 1 << 30)] {
        assert_eq!(guest.raw(&init_with(flags), 4096).unwrap().errno, libc::EPROTO);
    }
    fs::write(guest.share().join("file"), "content").unwrap();
    let file = guest.lookup("file");
    assert_eq!(guest.open(file, libc::O_RDONLY).errno, 0, "nothing was started over");
    let served = (0..2000).filter(|_| guest.raw(&init(), 4096).unwrap().errno == 0).count();
    assert!((900..1000).contains(&served), "{served}");
    assert_eq!(guest.metrics.refused_inits.get() + served as u64, 2002);
    assert_eq!(guest.call(op::STATFS, ROOT, body()).errno, 0);
}

/// Messages that are half right: known operations with random lengths, nodes and numbers.
#[test]
fn random_messages_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut guest = Guest::mount(false);
    fs::create_dir(guest.share().join("a")).unwrap();
    let numbers = [0, 1, 2, 3, 4, 7, 100, i64::MAX as u64, 1 << 63, u64::MAX, u32::MAX.into()];
    let names = ["a", "b", "c/d", "..", "\0", "user.x", ""];
    for _ in 0..30_000 {
        let opcode = (random() % 54) as u32;
        if opcode == op::SYNCFS || (opcode == op::DESTROY && random() % 50 > 0) {
            continue;
        }
        let mut body = body();
        for _ in 0..random() % 10 {
            body = match random() % 3 {
                0 => body.u64(numbers[random() as usize % numbers.len()]),
                1 => body.u32(numbers[random() as usize % numbers.len()] as u32 % 0x1_0000),
                _ => body.name(names[random() as usize % names.len()]),
            };
        }
        let mut message = message(opcode, random() % 12, body);
        if random() % 8 == 0 {
            let len = numbers[random() as usize % numbers.len()] as u32;
            message[..4].copy_from_slice(&len.to_le_bytes());
        }
        message.truncate(message.len() - (random() % 16) as usize % message.len());
        let room = [0, 15, 16, 17, 100, 4096, 60_000][random() as usize % 7];
        guest.raw(&message, room);
        if random() % 100 == 0 {
            guest.raw(&init(), 4096);
        }
    }
    assert_eq!(fs::read_dir(guest.outside()).unwrap().count(), 1, "nothing left the share");
}

fn device(root: &std::path::Path, tag: &str) -> Result<Fs, FsError> {
    let root = root.to_str().unwrap().into();
    let (proc_self_fd, shares) = (proc_self_fd(), Arc::default());
    let (read_only, strip_setuid) = (false, false);
    Fs::new(Config {
        tag: tag.into(),
        read_only,
        strip_setuid,
        exclusive_rootfs: true,
        root,
        proc_self_fd,
        shares,
        files: 1000,
    })
}

#[test]
fn config_space_is_the_tag_and_one_request_queue() {
    let directory = tempfile::tempdir().unwrap();
    let device_of = |tag: &str| device(directory.path(), tag);
    let mut config = [0xff; 44];
    device_of("share").unwrap().read_config(0, &mut config);
    assert_eq!(config[..6], *b"share\0");
    assert_eq!(config[36..], [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let longest = "t".repeat(36);
    device_of(&longest).unwrap().read_config(0, &mut config);
    assert_eq!(config[..36], *longest.as_bytes());
    for bad in [String::new(), "t".repeat(37), "a\0b".into()] {
        assert!(matches!(device_of(&bad), Err(FsError::Tag { .. })));
    }
}

/// The same through the device: kicks in, interrupts out, threads gone after a reset, and all over again.
#[test]
fn the_device_serves_both_queues_by_its_own_threads_and_starts_anew_after_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = device(directory.path(), "share").unwrap();
    for _ in 0..2 {
        let memory = Memory::anonymous(8 << 20).unwrap();
        let mut drivers = [Driver::at(0), Driver::at(0x30_0000)];
        let kicks: Vec<_> = (0..2).map(|_| Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())).collect();
        let queues = drivers
            .iter()
            .enumerate()
            .map(|(i, driver)| {
                driver.setup().activate(i, 1024, false, Arc::clone(&kicks[i]), &*memory).unwrap()
            })
            .collect();
        let interrupt = Arc::new(Interrupt::new().unwrap());
        let activation =
            Activation { memory: memory.clone(), queues, interrupt: Arc::clone(&interrupt), features: 0 };
        device.activate(activation).unwrap();
        let statfs = message(op::STATFS, ROOT, body());
        let mut ask = |queue: usize, message: &[u8]| {
            drivers[queue].offer(&memory, message, 4096);
            kicks[queue].write(1).unwrap();
            loop {
                let fd = borrow(interrupt.irqfd());
                let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
                let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut poll, Some(&timeout)).unwrap(), 1, "no interrupt");
                interrupt.irqfd().read().unwrap();
                if let Some(len) = drivers[queue].used(&memory) {
                    return drivers[queue].reply(&memory, len);
                }
            }
        };
        assert_eq!(ask(1, &statfs).unwrap().errno, libc::EBADF, "not mounted");
        assert_eq!(ask(1, &init()).unwrap().errno, 0);
        for _ in 0..100 {
            assert_eq!(ask(1, &statfs).unwrap().errno, 0);
            assert_eq!(ask(0, &message(op::FORGET, 77, body().u64(1))), None);
        }
        device.reset();
        device.reset();
    }
    assert!(device.metrics().contains(&("bad_requests", 0)));
}
