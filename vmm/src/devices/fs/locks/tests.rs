//! Locks without a guest: owners and handles are numbers, and strangers are other descriptions of the same file.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use virtiofsd::fuse::{FileLock, LK_FLOCK, LkIn};

use super::{super::budget::Budget, call::Wait, request::Range, *};

const END: u64 = i64::MAX as u64;
/// A hang is a failure, and this is longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// A guest that has opened one file: the handles 1 (reading), 2 and 3 (both ways).
struct Guest {
    locks: Arc<Locks>,
    file: Arc<FileLocks>,
    path: PathBuf,
    handles: Vec<Arc<File>>,
    budget: Budget,
    unique: u64,
}

/// How a request that waits was answered.
type Told = Receiver<Result<(), Errno>>;

impl Guest {
    fn new(directory: &tempfile::TempDir) -> Self {
        let path = directory.path().join("file");
        let both =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let files = [both(), both()];
        let handles = [File::open(&path).unwrap()].into_iter().chain(files).map(Arc::new).collect();
        let (locks, file, budget) = (Arc::default(), Arc::default(), Budget::new(1000));
        Self { locks, file, path, handles, budget, unique: 0 }
    }

    fn with<T>(&self, handle: u64, work: impl FnOnce(&Via<'_>) -> T) -> T {
        let open = |writable| {
            let file = File::options().read(true).write(writable).open(&self.path)?;
            Ok(Description::new(file, writable, self.budget.take()?))
        };
        let file = &self.handles[handle as usize - 1];
        work(&Via { handle, file, readable: true, writable: handle > 1, open: &open })
    }

    fn set(&self, handle: u64, request: Request) -> Result<(), Errno> {
        self.with(handle, |via| self.locks.set(&self.file, via, &request))
    }

    /// Waits; the request has the number `self.unique` then.
    fn wait(&mut self, handle: u64, request: Request) -> Result<Told, Option<i32>> {
        self.unique += 1;
        let (tell, told) = channel();
        let answer = || -> Answer { Box::new(move |result| tell.send(result).unwrap()) };
        let outcome =
            self.with(handle, |via| self.locks.set_waiting(&self.file, via, request, self.unique, answer));
        match outcome {
            Outcome::Later => Ok(told),
            Outcome::Done(done) => Err(done.err().and_then(|error| error.raw_os_error())),
        }
    }

    fn flush(&self, owner: u64) {
        self.locks.flush(&self.file, owner);
    }

    fn release(&self, handle: u64) {
        self.locks.release(&self.file, handle, &self.handles[handle as usize - 1]);
    }
}

fn posix(owner: u64, start: u64, end: u64, kind: i32) -> Request {
    let lk = FileLock { start, end, type_: kind as u32, pid: owner as u32 + 100 };
    Request::try_from(&LkIn { owner, lk, ..Default::default() }).unwrap()
}

fn write(owner: u64) -> Request {
    posix(owner, 0, END, libc::F_WRLCK)
}

fn unlock(owner: u64) -> Request {
    posix(owner, 0, END, libc::F_UNLCK)
}

fn flock(owner: u64, kind: i32) -> Request {
    let lk = FileLock { start: 0, end: END, type_: kind as u32, pid: 1 };
    Request::try_from(&LkIn { owner, lk, lk_flags: LK_FLOCK, ..Default::default() }).unwrap()
}

/// Somebody outside of the guest who has locked the file, or part of it.
fn stranger(guest: &Guest, start: u64, end: u64) -> File {
    let file = File::options().read(true).write(true).open(&guest.path).unwrap();
    call::range(&file, Range::new(start, end).unwrap(), Some(Access::Write), Wait::No).unwrap();
    file
}

fn silent(told: &Told) -> bool {
    matches!(told.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty))
}

#[test]
fn what_is_no_lock_is_refused() {
    let ask = |start, end, kind: i32| {
        let lk = FileLock { start, end, type_: kind as u32, pid: 1 };
        Request::try_from(&LkIn { lk, ..Default::default() })
    };
    assert_eq!(ask(0, END, 3), Err(Errno::INVAL));
    assert_eq!(ask(5, 4, libc::F_WRLCK), Err(Errno::INVAL));
    assert_eq!(ask(0, END + 1, libc::F_WRLCK), Err(Errno::INVAL));
    assert!(ask(END, END, libc::F_UNLCK).is_ok());
}

#[test]
fn owners_of_one_guest_of_two_guests_and_the_host_agree() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (Guest::new(&directory), Guest::new(&directory));
    one.set(2, posix(1, 0, 9, libc::F_WRLCK)).unwrap();
    one.set(2, posix(1, 0, 99, libc::F_WRLCK)).unwrap();
    assert_eq!(one.set(3, posix(2, 50, 50, libc::F_RDLCK)), Err(Errno::AGAIN), "another process");
    assert_eq!(other.set(2, posix(1, 50, 50, libc::F_RDLCK)), Err(Errno::AGAIN), "another guest");
    other.set(2, posix(1, 100, END, libc::F_WRLCK)).unwrap();
    assert_eq!(one.set(2, posix(1, 100, 100, libc::F_WRLCK)), Err(Errno::AGAIN));
    one.set(2, posix(1, 0, 49, libc::F_UNLCK)).unwrap();
    one.set(3, posix(2, 0, 49, libc::F_WRLCK)).unwrap();
    let host = File::open(&one.path).unwrap();
    let all = Range::new(0, END).unwrap();
    assert_eq!(call::range(&host, all, Some(Access::Read), Wait::No), Err(Errno::AGAIN), "the host");
    // All that a process had of the file goes when it closes any descriptor of it.
    one.flush(1);
    one.flush(2);
    other.flush(1);
    call::range(&host, all, Some(Access::Read), Wait::No).unwrap();
    assert_eq!(one.set(2, write(1)), Err(Errno::AGAIN));
    assert_eq!(one.set(1, posix(1, 0, END, libc::F_RDLCK)), Ok(()), "readers share");
}

#[test]
fn flock_is_of_an_opening_and_apart_from_byte_ranges() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (Guest::new(&directory), Guest::new(&directory));
    // For reading only, and exclusive all the same: as flock(2).
    one.set(1, flock(7, libc::F_WRLCK)).unwrap();
    assert_eq!(one.set(2, flock(8, libc::F_RDLCK)), Err(Errno::AGAIN));
    assert_eq!(other.set(1, flock(7, libc::F_RDLCK)), Err(Errno::AGAIN));
    one.set(2, write(7)).unwrap();
    one.set(1, flock(7, libc::F_RDLCK)).unwrap();
    other.set(1, flock(7, libc::F_RDLCK)).unwrap();
    one.release(1);
    assert_eq!(one.set(2, flock(8, libc::F_WRLCK)), Err(Errno::AGAIN));
    other.set(1, flock(7, libc::F_UNLCK)).unwrap();
    one.set(2, flock(8, libc::F_WRLCK)).unwrap();
}

#[test]
fn a_lock_needs_an_opening_that_may_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let guest = Guest::new(&directory);
    assert_eq!(guest.set(1, write(1)), Err(Errno::BADF));
    guest.set(1, posix(1, 0, END, libc::F_RDLCK)).unwrap();
    guest.set(1, unlock(1)).unwrap();
    guest.set(1, unlock(2)).unwrap();
}

/// SQLite opens a database for reading and for writing in one process.
#[test]
fn an_owner_that_comes_by_a_second_opening_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (Guest::new(&directory), Guest::new(&directory));
    one.set(1, posix(1, 0, 9, libc::F_RDLCK)).unwrap();
    other.set(1, posix(1, 0, 9, libc::F_RDLCK)).unwrap();
    one.set(2, posix(1, 20, 29, libc::F_WRLCK)).unwrap();
    other.flush(1);
    assert_eq!(other.set(2, posix(1, 5, 5, libc::F_WRLCK)), Err(Errno::AGAIN));
    assert_eq!(other.set(2, posix(1, 25, 25, libc::F_RDLCK)), Err(Errno::AGAIN));
    one.set(2, posix(1, 0, 9, libc::F_WRLCK)).unwrap();
    one.flush(1);
    other.set(2, write(1)).unwrap();
}

/// F_OFD_SETLK in the guest: nothing but the end of the opening says that it is closed.
#[test]
fn an_owner_goes_with_the_last_opening_that_its_locks_came_by() {
    let directory = tempfile::tempdir().unwrap();
    let guest = Guest::new(&directory);
    guest.set(2, posix(1, 0, 9, libc::F_WRLCK)).unwrap();
    guest.set(3, posix(1, 10, 19, libc::F_WRLCK)).unwrap();
    guest.release(3);
    assert_eq!(guest.set(2, posix(2, 0, 0, libc::F_RDLCK)), Err(Errno::AGAIN));
    guest.release(2);
    guest.set(2, posix(2, 0, 19, libc::F_WRLCK)).unwrap();
}

#[test]
fn who_has_a_lock_is_told_with_its_process_or_as_nobody_here() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (Guest::new(&directory), Guest::new(&directory));
    one.set(2, posix(1, 10, 19, libc::F_WRLCK)).unwrap();
    let ask = |guest: &Guest, asked: Request| {
        guest.locks.test(Some(&guest.file), &guest.handles[0], &asked).unwrap()
    };
    let found = ask(&one, posix(2, 0, END, libc::F_RDLCK)).unwrap();
    let range = Range::new(10, 19).unwrap();
    assert_eq!((found.range, found.access, found.pid), (range, Some(Access::Write), 101));
    let found = ask(&other, posix(2, 0, END, libc::F_RDLCK)).unwrap();
    assert_eq!((found.range, found.pid), (range, 0));
    assert_eq!(ask(&one, posix(1, 0, END, libc::F_WRLCK)), None, "its own");
    assert_eq!(ask(&one, posix(2, 20, END, libc::F_WRLCK)), None);
    let asked = flock(1, libc::F_WRLCK);
    assert_eq!(one.locks.test(None, &one.handles[0], &asked), Err(Errno::INVAL));
    assert_eq!(one.locks.test(None, &one.handles[0], &unlock(1)), Err(Errno::INVAL));
}

/// There is no thread here at all.
#[test]
fn a_hundred_who_wait_for_each_other_need_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    guest.set(2, write(0)).unwrap();
    let mut told: Vec<Told> = (1..=100).map(|owner| guest.wait(2, write(owner)).unwrap()).collect();
    assert!(told.iter().all(silent));
    for owner in 0..100 {
        guest.set(2, unlock(owner)).unwrap();
        assert_eq!(told.remove(0).try_recv(), Ok(Ok(())), "in order");
        assert!(told.iter().all(silent));
    }
}

#[test]
fn readers_who_wait_come_together_and_a_lock_that_becomes_one_for_reading_lets_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    guest.set(2, write(0)).unwrap();
    let readers: Vec<Told> =
        (1..=5).map(|owner| guest.wait(1, posix(owner, 0, END, libc::F_RDLCK)).unwrap()).collect();
    let writer = guest.wait(2, write(9)).unwrap();
    guest.set(2, posix(0, 0, END, libc::F_RDLCK)).unwrap();
    assert!(readers.iter().all(|told| told.try_recv() == Ok(Ok(()))));
    for owner in 0..=5 {
        assert!(silent(&writer));
        guest.flush(owner);
    }
    assert_eq!(writer.try_recv(), Ok(Ok(())));
}

#[test]
fn flock_is_waited_for_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    guest.set(2, flock(2, libc::F_WRLCK)).unwrap();
    let told = guest.wait(3, flock(3, libc::F_WRLCK)).unwrap();
    assert!(silent(&told));
    guest.release(2);
    assert_eq!(told.try_recv(), Ok(Ok(())));
    assert_eq!(guest.set(1, flock(1, libc::F_RDLCK)), Err(Errno::AGAIN));
}

#[test]
fn a_lock_of_a_stranger_is_waited_for_by_a_thread() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    let held = stranger(&guest, 0, 9);
    assert_eq!(guest.wait(2, write(1)).unwrap().try_recv(), Ok(Err(Errno::NOLCK)), "no thread");
    let _waiters = Waiters::spawn(&guest.locks).unwrap();
    // More than there are threads, since all wait for the same.
    let mut waiting: Vec<(u64, Told)> =
        (1..=50).map(|owner| (owner, guest.wait(2, write(owner)).unwrap())).collect();
    waiting.push((60, guest.wait(2, posix(60, 5, 5, libc::F_RDLCK)).unwrap()));
    assert!(waiting.iter().all(|(_, told)| silent(told)));
    drop(held);
    // One after the other, whoever of the two threads was faster.
    let end = Instant::now() + LONG;
    while !waiting.is_empty() {
        assert!(Instant::now() < end, "{} are not told", waiting.len());
        waiting.retain(|(owner, told)| match told.try_recv() {
            Ok(answer) => {
                assert_eq!(answer, Ok(()));
                guest.flush(*owner);
                false
            }
            Err(_) => true,
        });
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_counts_before_it_has_come_to_the_queue() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    let held = stranger(&guest, 0, 9);
    guest.locks.queue.free(1);
    let told = guest.wait(2, write(1)).unwrap();
    assert!(silent(&told));
    let _waiters = Waiters::spawn(&guest.locks).unwrap();
    drop(held);
    assert_eq!(told.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn a_wait_ends_by_an_interrupt_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    let _waiters = Waiters::spawn(&guest.locks).unwrap();
    guest.set(2, posix(1, 0, 9, libc::F_WRLCK)).unwrap();
    let _held = stranger(&guest, 10, 19);
    let parked = guest.wait(2, posix(2, 0, 9, libc::F_WRLCK)).unwrap();
    guest.locks.interrupt(guest.unique);
    assert_eq!(parked.try_recv(), Ok(Err(Errno::INTR)));
    // Again and again, so that it meets the thread at each place.
    for turn in 0..300 {
        let told = guest.wait(2, posix(2, 10, 19, libc::F_WRLCK)).unwrap();
        (0..turn * 20).for_each(|_| std::hint::spin_loop());
        guest.locks.interrupt(guest.unique);
        assert_eq!(told.recv_timeout(LONG), Ok(Err(Errno::INTR)));
    }
    // One that comes before its request, and one for a request that is answered.
    guest.locks.interrupt(guest.unique + 1);
    assert_eq!(guest.wait(2, posix(2, 10, 19, libc::F_WRLCK)).err(), Some(Some(libc::EINTR)));
    guest.locks.interrupt(guest.unique);
    assert!(guest.locks.waits().waiting.is_empty());
    // Nobody who waits behind it loses the thread.
    let first = guest.wait(2, posix(2, 10, 19, libc::F_WRLCK)).unwrap();
    let behind = guest.unique;
    let second = guest.wait(2, posix(3, 10, 19, libc::F_WRLCK)).unwrap();
    guest.locks.interrupt(behind);
    assert_eq!(first.recv_timeout(LONG), Ok(Err(Errno::INTR)));
    drop(_held);
    assert_eq!(second.recv_timeout(LONG), Ok(Ok(())));
}

/// Between its number being known and its place among those who wait, nobody finds it.
#[test]
fn a_wait_that_is_ended_on_its_way_ends_when_it_arrives() {
    let directory = tempfile::tempdir().unwrap();
    let guest = Guest::new(&directory);
    guest.set(2, flock(2, libc::F_WRLCK)).unwrap();
    let (tell, told) = channel();
    let answer: Answer = Box::new(move |result| tell.send(result).unwrap());
    let request = flock(3, libc::F_WRLCK);
    let waiting = guest.with(3, |via| Arc::new(Waiting::new(9, request, via, answer)));
    guest.locks.register(9, &guest.file, &waiting).unwrap();
    guest.locks.interrupt(9);
    let mut state = guest.file.state();
    state.park(&waiting).unwrap();
    let finished = guest.locks.settle(&guest.file, &mut state);
    drop(state);
    guest.locks.tell(finished);
    assert_eq!(told.try_recv(), Ok(Err(Errno::INTR)));
    guest.locks.end_all();
}

#[test]
fn a_process_that_closes_another_descriptor_goes_on_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    let _waiters = Waiters::spawn(&guest.locks).unwrap();
    guest.set(3, posix(1, 100, 100, libc::F_WRLCK)).unwrap();
    let held = stranger(&guest, 0, 9);
    let told = guest.wait(2, posix(1, 0, 9, libc::F_WRLCK)).unwrap();
    guest.flush(1);
    drop(held);
    assert_eq!(told.recv_timeout(LONG), Ok(Ok(())));
    assert_eq!(guest.set(2, posix(2, 0, 0, libc::F_RDLCK)), Err(Errno::AGAIN));
    guest.set(2, posix(2, 100, 100, libc::F_WRLCK)).unwrap();
    guest.flush(1);
    guest.set(2, posix(2, 0, 0, libc::F_RDLCK)).unwrap();
}

#[test]
fn what_is_taken_from_the_guest_ends_its_waits_and_frees_its_locks() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    let _waiters = Waiters::spawn(&guest.locks).unwrap();
    guest.set(2, posix(1, 0, 9, libc::F_WRLCK)).unwrap();
    let _held = stranger(&guest, 10, 19);
    let waits = [
        guest.wait(2, posix(2, 0, 9, libc::F_WRLCK)).unwrap(),
        guest.wait(2, posix(3, 10, 19, libc::F_WRLCK)).unwrap(),
    ];
    guest.locks.revoke(&guest.file);
    for told in waits {
        assert_eq!(told.recv_timeout(LONG), Ok(Err(Errno::STALE)));
    }
    stranger(&guest, 0, 9);
    assert_eq!(guest.set(2, write(1)), Err(Errno::STALE));
    assert_eq!(guest.set(2, flock(1, libc::F_WRLCK)), Err(Errno::STALE));
    assert_eq!(guest.locks.ranges.load(Ordering::Relaxed), 0);
}

#[test]
fn a_reset_drops_what_waits_without_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    let waiters = Waiters::spawn(&guest.locks).unwrap();
    guest.set(2, posix(1, 0, 9, libc::F_WRLCK)).unwrap();
    let _held = stranger(&guest, 10, 19);
    for _ in 0..50 {
        let waits = [
            guest.wait(2, posix(2, 0, 9, libc::F_WRLCK)).unwrap(),
            guest.wait(2, posix(3, 10, 19, libc::F_WRLCK)).unwrap(),
        ];
        guest.locks.end_all();
        for told in waits {
            assert!(told.try_recv().is_err());
        }
    }
    let told = guest.wait(2, posix(3, 10, 19, libc::F_WRLCK)).unwrap();
    drop(waiters);
    assert!(told.try_recv().is_err());
}

#[test]
fn a_storm_of_locks_ends_at_the_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(&directory);
    guest.set(2, posix(0, 0, 0, libc::F_WRLCK)).unwrap();
    let waits: Vec<Told> = (0..MOST_WAITING as u64)
        .map(|owner| guest.wait(2, posix(owner % 300 + 1, 0, 0, libc::F_WRLCK)).unwrap())
        .collect();
    let refused = guest.wait(2, posix(1, 0, 0, libc::F_WRLCK)).err();
    assert_eq!(refused, Some(Some(libc::ENOLCK)));
    guest.locks.end_all();
    drop(waits);
    // Every second byte, so that none becomes one with its neighbour.
    let refused = (1..).find_map(|n| guest.set(2, posix(0, 2 * n, 2 * n, libc::F_WRLCK)).err());
    assert_eq!(refused, Some(Errno::NOLCK));
    assert!(guest.locks.ranges.load(Ordering::Relaxed) <= MOST_RANGES);
    guest.flush(0);
    // Holes make ranges as well.
    guest.set(2, write(0)).unwrap();
    let refused = (1..).find_map(|n| guest.set(2, posix(0, 2 * n, 2 * n, libc::F_UNLCK)).err());
    assert_eq!(refused, Some(Errno::NOLCK));
    assert!(guest.locks.ranges.load(Ordering::Relaxed) <= 2 * MOST_RANGES);
    guest.set(2, unlock(0)).unwrap();
    guest.set(2, write(1)).unwrap();
    assert_eq!(guest.locks.ranges.load(Ordering::Relaxed), 1);
    // Each owner takes a descriptor.
    let refused = (2..).find_map(|owner| {
        let place = 2 * owner;
        guest.set(2, posix(1, place, place, libc::F_UNLCK)).unwrap();
        guest.set(2, posix(owner, place, place, libc::F_WRLCK)).err()
    });
    assert_eq!(refused, Some(Errno::NOLCK));
}
