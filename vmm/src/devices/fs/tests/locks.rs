//! Locks as messages: what of the guest's numbers leads to a lock, and what ends one.

use std::fs::File;

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    guest::{Told, numbered},
    *,
};

const END: u64 = i64::MAX as u64;
const WRITE: i32 = libc::F_WRLCK;
const UNLOCK: i32 = libc::F_UNLCK;

/// A lock of the whole file.
fn lock(handle: u64, owner: u64, kind: i32, is_flock: bool) -> Body {
    let body = body().u64(handle).u64(owner).u64(0).u64(END).u32(kind as u32).u32(77);
    body.u32(is_flock.into()).u32(0)
}

struct Opened {
    guest: Guest,
    node: u64,
    handle: u64,
    host: File,
}

/// A file below a directory, open for reading and writing; and the host's own opening of it.
fn opened() -> Opened {
    let mut guest = Guest::mount(false);
    fs::create_dir(guest.share().join("web")).unwrap();
    fs::write(guest.share().join("web/file"), "").unwrap();
    let directory = guest.lookup("web");
    let node = guest.call(op::LOOKUP, directory, body().name("file")).node();
    let handle = guest.open(node, libc::O_RDWR).handle();
    let host = File::options().read(true).write(true).open(guest.share().join("web/file")).unwrap();
    Opened { guest, node, handle, host }
}

fn try_flock(file: &File) -> Result<(), Errno> {
    let locked = flock(file, FlockOperation::NonBlockingLockExclusive);
    flock(file, FlockOperation::Unlock).unwrap();
    locked
}

/// Whether the host gets a lock on all bytes.
fn try_range(file: &File) -> Result<(), Errno> {
    let set = |kind: i32| {
        // SAFETY: all zeros is a valid flock64.
        let mut lock: libc::flock64 = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        // SAFETY: the descriptor is open, and the command takes a flock64.
        let done =
            unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(file), libc::F_OFD_SETLK, &raw const lock) };
        if done == 0 { Ok(()) } else { Err(Errno::AGAIN) }
    };
    let locked = set(WRITE);
    set(UNLOCK).unwrap();
    locked
}

#[test]
fn both_kinds_of_locks_are_the_hosts_and_end_as_linux_ends_them() {
    let Opened { mut guest, node, handle, host } = opened();
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 5, WRITE, true)).errno, 0);
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 6, WRITE, false)).errno, 0);
    assert_eq!((try_flock(&host), try_range(&host)), (Err(Errno::AGAIN), Err(Errno::AGAIN)));
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 8, WRITE, false)).errno, libc::EAGAIN);
    // close(2) ends the locks of a process; the end of an opening ends its flock.
    let flush = body().u64(handle).u32(0).u32(0).u64(6);
    assert_eq!(guest.call(op::FLUSH, node, flush).errno, 0);
    assert_eq!((try_flock(&host), try_range(&host)), (Err(Errno::AGAIN), Ok(())));
    let release = body().u64(handle).u32(0).u32(2).u64(5);
    assert_eq!(guest.call(op::RELEASE, node, release).errno, 0);
    assert_eq!(try_flock(&host), Ok(()));
}

#[test]
fn a_question_is_answered_with_the_lock_that_is_in_the_way() {
    let Opened { mut guest, node, handle, .. } = opened();
    let free = guest.call(op::GETLK, node, lock(handle, 6, WRITE, false));
    assert_eq!((free.errno, free.body[16..20].to_vec()), (0, (UNLOCK as u32).to_le_bytes().to_vec()));
    let third = body().u64(handle).u64(5).u64(10).u64(19).u32(WRITE as u32).u32(77).u32(0).u32(0);
    assert_eq!(guest.call(op::SETLK, node, third).errno, 0);
    let held = guest.call(op::GETLK, node, lock(handle, 6, libc::F_RDLCK, false));
    assert_eq!(held.body, body().u64(10).u64(19).u32(WRITE as u32).u32(77).0);
}

#[test]
fn a_lock_by_numbers_that_the_guest_does_not_have_is_an_error() {
    let Opened { mut guest, node, handle, host } = opened();
    let other = guest.open(node, libc::O_RDONLY).handle();
    for opcode in [op::GETLK, op::SETLK, op::SETLKW] {
        for is_flock in [false, true] {
            let errno = |guest: &mut Guest, node, handle| {
                guest.call(opcode, node, lock(handle, 5, WRITE, is_flock)).errno
            };
            assert_eq!(errno(&mut guest, node, 99), libc::EBADF);
            assert_eq!(errno(&mut guest, ROOT, handle), libc::EBADF);
            assert_eq!(errno(&mut guest, 999, handle), libc::ESTALE);
        }
        let bad = body().u64(handle).u64(5).u64(9).u64(8).u32(WRITE as u32).u32(1).u32(0).u32(0);
        assert_eq!(guest.call(opcode, node, bad).errno, libc::EINVAL);
        assert_eq!(guest.raw(&message(opcode, node, body().u64(handle)), 4096), None, "cut off");
    }
    assert_eq!(guest.call(op::SETLK, node, lock(other, 5, WRITE, false)).errno, libc::EBADF);
    assert_eq!((try_flock(&host), try_range(&host)), (Ok(()), Ok(())));
}

#[test]
fn a_lock_that_another_holds_is_waited_for_beside_other_requests() {
    let Opened { mut guest, node, handle, host } = opened();
    flock(&host, FlockOperation::LockExclusive).unwrap();
    let wait = |number| numbered(message(op::SETLKW, node, lock(handle, 5, WRITE, true)), number);
    assert_eq!(guest.raw(&wait(20), 4096), None);
    assert_eq!(guest.call(op::GETATTR, node, body().u64(0).u64(0)).errno, 0);
    flock(&host, FlockOperation::Unlock).unwrap();
    assert_eq!(guest.told(), (20, Ok(())));
    assert_eq!(try_flock(&host), Err(Errno::AGAIN));
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 5, UNLOCK, true)).errno, 0);
    // An interrupt has no room for an answer, as FORGET has none.
    flock(&host, FlockOperation::LockExclusive).unwrap();
    assert_eq!(guest.raw(&wait(22), 4096), None);
    let interrupt = numbered(message(op::INTERRUPT, 0, body().u64(22)), 23);
    assert_eq!(guest.raw(&interrupt, 0), None);
    assert_eq!(guest.told(), (22, Err(Errno::INTR)));
    assert_eq!(guest.metrics.bad_requests.get(), 0);
    // One that is granted at once is answered at once.
    flock(&host, FlockOperation::Unlock).unwrap();
    assert_eq!(guest.raw(&wait(24), 4096).unwrap().errno, 0);
}

#[test]
fn a_revoked_export_keeps_no_lock_and_no_wait() {
    let Opened { mut guest, node, handle, host } = opened();
    let second = guest.open(node, libc::O_RDWR).handle();
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 5, WRITE, true)).errno, 0);
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 6, WRITE, false)).errno, 0);
    for (number, body) in [(20, lock(second, 7, WRITE, true)), (22, lock(second, 8, WRITE, false))] {
        assert_eq!(guest.raw(&numbered(message(op::SETLKW, node, body), number), 4096), None);
    }
    guest.filter.revoke(b"web");
    let mut told: Vec<Told> = vec![guest.told(), guest.told()];
    told.sort_by_key(|(number, _)| *number);
    assert_eq!(told, [(20, Err(Errno::STALE)), (22, Err(Errno::STALE))]);
    assert_eq!((try_flock(&host), try_range(&host)), (Ok(()), Ok(())));
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 5, WRITE, true)).errno, libc::ESTALE);
}

#[test]
fn a_guest_that_starts_over_has_no_locks() {
    let Opened { mut guest, node, handle, host } = opened();
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 5, WRITE, true)).errno, 0);
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 6, WRITE, false)).errno, 0);
    guest.remount(0);
    assert_eq!((try_flock(&host), try_range(&host)), (Ok(()), Ok(())));
}

/// Or what another holder of the lock wrote would be seen late.
#[test]
fn attributes_of_a_file_that_was_locked_are_asked_for_each_time() {
    let Opened { mut guest, node, handle, .. } = opened();
    let valid = |guest: &mut Guest| {
        let reply = guest.call(op::GETATTR, node, body().u64(0).u64(0));
        u64::from_le_bytes(reply.body[..8].try_into().unwrap())
    };
    assert_eq!(valid(&mut guest), 1);
    assert_eq!(guest.call(op::GETLK, node, lock(handle, 5, WRITE, false)).errno, 0);
    assert_eq!(valid(&mut guest), 1);
    assert_eq!(guest.call(op::SETLK, node, lock(handle, 5, WRITE, false)).errno, 0);
    assert_eq!(valid(&mut guest), 0);
}

#[test]
fn locks_and_acls_are_taken_up_where_the_guest_has_them() {
    let mut guest = Guest::mount(false);
    let taken = |guest: &mut Guest, offered: u32| {
        let reply = guest.raw(&init_with(offered | 1 << 27), 4096).unwrap();
        u32::from_le_bytes(reply.body[12..16].try_into().unwrap())
    };
    // FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS; FUSE_DONT_MASK, FUSE_POSIX_ACL, FUSE_SETXATTR_EXT.
    let (locks, acls) = (1 << 1 | 1 << 10, 1 << 6 | 1 << 20 | 1 << 29);
    assert_eq!(taken(&mut guest, locks | acls) & (locks | acls), locks | acls);
    assert_eq!(taken(&mut guest, locks | 1 << 6 | 1 << 20) & (locks | acls), locks);
}
