use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use rustix::pipe::pipe;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Bytes as _, GuestAddress};

use super::{disk::Cache, pool::Gate, *};
use crate::{
    devices::{
        interrupt::Interrupt,
        queue::ActiveQueue,
        testing::{Buffer, Ring},
    },
    event_loop::borrow,
    memory::{HUGE_PAGE, MEMORY_BLOCK, Memory},
};

const RINGS: u64 = 0x1000;
const HEADER_AT: u64 = 0x8000;
const STATUS_AT: u64 = 0x9000;
const DATA_AT: u64 = 0x10_0000;
const SECTORS: u64 = 16;
const BYTES: usize = SECTORS as usize * 512;
/// What no status is.
const UNTOUCHED: u8 = 0xee;

const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IOERR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPPORTED: u8 = VIRTIO_BLK_S_UNSUPP as u8;

fn header() -> Buffer {
    Buffer { address: HEADER_AT, len: 16, writable: false }
}

fn status() -> Buffer {
    Buffer { address: STATUS_AT, len: 1, writable: true }
}

fn data(len: u32, writable: bool) -> Buffer {
    Buffer { address: DATA_AT, len, writable }
}

/// What is in sector `n` of a fresh disk.
fn sector(n: usize) -> [u8; 512] {
    [n as u8 + 1; 512]
}

/// A disk in a file, with a driver that waits for each answer.
struct Driver {
    file: File,
    disk: Disk,
    memory: Memory,
    ring: Ring,
    queue: ActiveQueue,
    cache: Cache,
}

impl Driver {
    fn new(read_only: bool) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        (0..SECTORS as usize).for_each(|n| file.write_all(&sector(n)).unwrap());
        let memory = Memory::growing(2 * HUGE_PAGE, MEMORY_BLOCK).unwrap();
        let ring = Ring::new(&memory, RINGS, 16);
        let queue = ring.activate();
        let disk = Disk {
            file: file.try_clone().unwrap(),
            sectors: SECTORS,
            read_only,
            serial: *b"twenty bytes of name",
            metrics: Arc::default(),
        };
        Self { file, disk, memory, ring, queue, cache: Cache::Back }
    }

    /// Serves one chain whose header says this: the used length and the status.
    fn ask(&mut self, kind: u32, sector: u64, chain: &[Buffer]) -> (u32, u8) {
        self.ring.put(HEADER_AT, u64::from(kind));
        self.ring.put(HEADER_AT + 8, sector);
        self.ring.put(STATUS_AT, UNTOUCHED);
        let head = self.ring.offer(chain);
        let taken = self.queue.pop(&*self.memory).unwrap().unwrap();
        let written = self.disk.serve(&self.memory, taken, self.cache);
        self.queue.push(&*self.memory, head, written).unwrap();
        (written, self.memory.read_obj(GuestAddress(STATUS_AT)).unwrap())
    }

    fn read(&mut self, sector: u64, len: u32) -> (u32, u8) {
        self.ask(VIRTIO_BLK_T_IN, sector, &[header(), data(len, true), status()])
    }

    fn write(&mut self, sector: u64, len: u32) -> (u32, u8) {
        self.ask(VIRTIO_BLK_T_OUT, sector, &[header(), data(len, false), status()])
    }

    /// Asks for a range to be discarded or zeroed.
    fn clear(&mut self, kind: u32, sector: u64, count: u32, flags: u32) -> u8 {
        self.ring.put(DATA_AT, sector);
        self.ring.put(DATA_AT + 8, count);
        self.ring.put(DATA_AT + 12, flags);
        self.ask(kind, 0, &[header(), data(16, false), status()]).1
    }

    fn memory_at(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn content(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0)).unwrap();
        self.file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn is_untouched(&mut self) -> bool {
        let content = self.content();
        content.len() == BYTES && content.chunks(512).enumerate().all(|(n, bytes)| bytes == sector(n))
    }
}

#[test]
fn what_is_read_and_written_is_where_the_sector_says() {
    let mut driver = Driver::new(false);
    assert_eq!(driver.read(3, 1024), (1025, OK));
    assert_eq!(driver.memory_at(DATA_AT, 1024), [sector(3), sector(4)].concat());
    driver.memory.write_slice(&[0xab; 512], GuestAddress(DATA_AT)).unwrap();
    assert_eq!(driver.write(SECTORS - 1, 512), (1, OK));
    let content = driver.content();
    assert_eq!(content.len(), BYTES);
    assert_eq!(content[BYTES - 512..], [0xab; 512]);
    assert_eq!(content[BYTES - 1024..BYTES - 512], sector(SECTORS as usize - 2));
}

/// virtio 1.2, 2.7.4: nothing is to be concluded from where a descriptor ends.
#[test]
fn header_data_and_status_may_be_cut_anywhere() {
    let mut driver = Driver::new(false);
    let piece = |address, len, writable| Buffer { address, len, writable };
    // The header in two, the data in three with nothing in between, and the last together with the status.
    let chain = [
        piece(HEADER_AT, 5, false),
        piece(HEADER_AT + 5, 11, false),
        piece(DATA_AT, 100, true),
        piece(DATA_AT, 0, true),
        piece(DATA_AT + 0x1000, 400, true),
        piece(DATA_AT + 0x2000, 13, true),
    ];
    driver.ring.put(DATA_AT + 0x2000 + 12, UNTOUCHED);
    assert_eq!(driver.ask(VIRTIO_BLK_T_IN, 1, &chain), (513, UNTOUCHED));
    assert_eq!(driver.memory_at(DATA_AT + 0x2000, 13), [&[2; 12][..], &[OK]].concat());
    assert_eq!(driver.memory_at(DATA_AT + 0x1000, 401), [&[2; 400][..], &[0]].concat());
    // Data that follows the header in its descriptor.
    driver.memory.write_slice(&[7; 512], GuestAddress(HEADER_AT + 16)).unwrap();
    assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, &[piece(HEADER_AT, 528, false), status()]), (1, OK));
    assert_eq!(driver.content()[..1024], [[7; 512], sector(1)].concat());
}

#[test]
fn nothing_beyond_the_end_and_no_part_of_a_sector_is_reached() {
    let mut driver = Driver::new(false);
    for (sector, len) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX - 1, 1024),
        (u64::MAX / 512 + 1, 512),
        (0, 511),
        (0, 513),
        (0, 1),
    ] {
        assert_eq!(driver.read(sector, len), (1, IOERR), "{len} bytes at {sector}");
        assert_eq!(driver.write(sector, len), (1, IOERR), "{len} bytes at {sector}");
    }
    assert!(driver.is_untouched());
    assert_eq!(driver.memory_at(DATA_AT, 1024), [0; 1024]);
    // A file that has shrunk since.
    driver.file.set_len(512).unwrap();
    assert_eq!(driver.read(0, 1024), (1, IOERR));
    assert_eq!(driver.read(0, 512), (513, OK));
}

#[test]
fn a_disk_that_is_read_only_does_not_change_whatever_was_negotiated() {
    let mut driver = Driver::new(true);
    for cache in [Cache::Back, Cache::Through] {
        driver.cache = cache;
        assert_eq!(driver.write(0, 512), (1, IOERR));
        assert_eq!(driver.clear(VIRTIO_BLK_T_DISCARD, 0, 8, 0), IOERR);
        assert_eq!(driver.clear(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 1), IOERR);
        assert_eq!(driver.clear(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), IOERR);
    }
    assert!(driver.is_untouched());
    assert_eq!(driver.disk.metrics.read_only.get(), 8);
    assert_eq!(driver.read(0, 512), (513, OK));
    assert_eq!(driver.ask(VIRTIO_BLK_T_FLUSH, 0, &[header(), status()]), (1, OK));
}

#[test]
fn the_serial_number_fills_what_there_is_room_for() {
    let mut driver = Driver::new(false);
    let mut asked = |len| driver.ask(VIRTIO_BLK_T_GET_ID, 0, &[header(), data(len, true), status()]);
    assert_eq!(asked(20), (21, OK));
    assert_eq!(asked(512), (21, OK));
    assert_eq!(asked(6), (7, OK));
    assert_eq!(driver.memory_at(DATA_AT, 21), b"twenty bytes of name\0");
}

#[test]
fn a_range_is_discarded_or_zeroed_and_nothing_around_it() {
    for (kind, flags) in
        [(VIRTIO_BLK_T_DISCARD, 0), (VIRTIO_BLK_T_WRITE_ZEROES, 0), (VIRTIO_BLK_T_WRITE_ZEROES, 1)]
    {
        let mut driver = Driver::new(false);
        let status = driver.clear(kind, 1, 8, flags);
        let content = driver.content();
        assert_eq!(content.len(), BYTES);
        assert_eq!(content[..512], sector(0));
        assert_eq!(content[9 * 512..10 * 512], sector(9));
        match status {
            OK => assert!(content[512..9 * 512].iter().all(|byte| *byte == 0), "{kind} {flags}"),
            // A filesystem that cannot zero without giving back (tmpfs): the driver writes the zeros.
            UNSUPPORTED => assert_eq!((kind, flags), (VIRTIO_BLK_T_WRITE_ZEROES, 0)),
            other => panic!("{kind} {flags}: {other}"),
        }
    }
}

#[test]
fn a_range_that_was_not_offered_is_refused() {
    let mut driver = Driver::new(false);
    let (discard, zeroes) = (VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES);
    assert_eq!(driver.clear(discard, SECTORS - 1, 2, 0), IOERR);
    assert_eq!(driver.clear(discard, u64::MAX, 1, 0), IOERR);
    assert_eq!(driver.clear(zeroes, 0, u32::MAX, 1), IOERR);
    assert_eq!(driver.clear(discard, 0, 1, 1), UNSUPPORTED, "unmap means nothing to a discard");
    assert_eq!(driver.clear(zeroes, 0, 1, 2), UNSUPPORTED);
    for len in [0, 8, 15, 17, 32] {
        let answer = driver.ask(discard, 0, &[header(), data(len, false), status()]);
        assert_eq!(answer, (1, IOERR), "{len} bytes");
    }
    assert!(driver.is_untouched());
    assert_eq!(driver.clear(discard, SECTORS, 0, 0), OK, "nothing, at the end");
}

#[test]
fn what_is_not_known_is_unsupported() {
    let mut driver = Driver::new(false);
    // SCSI, secure erase, a zone's report, and none at all.
    for kind in [2, 14, 16, 0x8000_0000, u32::MAX] {
        assert_eq!(driver.ask(kind, 0, &[header(), data(512, true), status()]), (1, UNSUPPORTED));
    }
    // A header that is cut off.
    let short = Buffer { len: 15, ..header() };
    assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, &[short, status()]), (1, UNSUPPORTED));
    assert!(driver.is_untouched());
}

#[test]
fn a_chain_without_a_place_for_an_answer_is_returned_as_it_is() {
    let mut driver = Driver::new(false);
    let end = 2 * HUGE_PAGE as u64;
    let chains: [&[Buffer]; 4] = [
        &[header()],
        &[header(), data(512, false)],
        &[header(), Buffer { len: 0, ..status() }],
        &[header(), data(512, true), Buffer { address: end, ..status() }],
    ];
    for chain in chains {
        assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, chain), (0, UNTOUCHED));
    }
    // More than the driver was told that it may send.
    let huge = data(u32::MAX - 100, false);
    assert_eq!(driver.ask(VIRTIO_BLK_T_OUT, 0, &[header(), huge, status()]), (0, UNTOUCHED));
    assert!(driver.is_untouched());
}

#[test]
fn data_that_is_no_memory_is_an_error_and_memory_that_is_not_plugged_too() {
    let mut driver = Driver::new(false);
    let hotplug = driver.memory.hotplug().unwrap().guest;
    let outside = 0xd000_0000;
    for address in [outside, hotplug, u64::MAX - 100, 2 * HUGE_PAGE as u64 - 256] {
        for (kind, writable) in [(VIRTIO_BLK_T_IN, true), (VIRTIO_BLK_T_OUT, false)] {
            let data = Buffer { address, len: 512, writable };
            assert_eq!(driver.ask(kind, 0, &[header(), data, status()]), (1, IOERR), "{address:#x}");
        }
    }
    assert!(driver.is_untouched());
}

/// The kernel moves less than was asked for at a signal or a fault; the rest is asked for again.
#[test]
fn what_was_moved_in_part_goes_on_where_it_stopped() {
    let mut driver = Driver::new(false);
    let hotplug = driver.memory.hotplug().unwrap().guest;
    let parts = [data(512, false), Buffer { address: hotplug, len: 512, writable: false }];
    driver.memory.write_slice(&[9; 512], GuestAddress(DATA_AT)).unwrap();
    let answer = driver.ask(VIRTIO_BLK_T_OUT, 2, &[header(), parts[0], parts[1], status()]);
    assert_eq!(answer, (1, IOERR), "the first sector is written, and the second cannot be");
    assert_eq!(driver.content()[3 * 512..4 * 512], sector(3));
}

fn disk_of(file: File, read_only: bool) -> Config {
    let sectors = file.metadata().unwrap().len() / 512;
    Config { file: file.into(), sectors, block_size: 512, read_only, serial: "bulkhead-0".into() }
}

fn fresh(read_only: bool) -> Config {
    let mut file = tempfile::tempfile().unwrap();
    (0..SECTORS as usize).for_each(|n| file.write_all(&sector(n)).unwrap());
    disk_of(file, read_only)
}

#[test]
fn the_driver_is_told_what_the_disk_is() {
    let workers = Workers::spawn().unwrap();
    let config = Config { block_size: 4096, ..fresh(true) };
    let blk = Blk::new(config, workers.pool()).unwrap();
    let mut space = [0xff; CONFIG + 4];
    blk.read_config(0, &mut space);
    let word = |at: usize| u32::from_le_bytes(space[at..at + 4].try_into().unwrap());
    assert_eq!(space[..8], SECTORS.to_le_bytes());
    assert_eq!([word(8), word(12), word(20)], [SEGMENT_BYTES, SEGMENTS as u32, 4096]);
    assert_eq!([word(40), word(44), word(52)], [1, 8, 1]);
    assert_eq!(space[CONFIG..], [0xff; 4], "what is not there is left alone");
    let offered = |blk: &Blk, bit: u32| blk.features() & 1 << bit != 0;
    assert!(offered(&blk, VIRTIO_BLK_F_RO) && !offered(&blk, VIRTIO_BLK_F_DISCARD));
    let blk = Blk::new(fresh(false), workers.pool()).unwrap();
    assert!(!offered(&blk, VIRTIO_BLK_F_RO) && offered(&blk, VIRTIO_BLK_F_WRITE_ZEROES));
}

#[test]
fn a_configuration_that_no_disk_has_is_refused() {
    let workers = Workers::spawn().unwrap();
    let refused = |config| Blk::new(config, workers.pool()).unwrap_err();
    assert!(matches!(refused(Config { sectors: 0, ..fresh(false) }), BlkError::Empty));
    assert!(matches!(refused(Config { sectors: u64::MAX, ..fresh(false) }), BlkError::TooLarge(_)));
    assert!(matches!(refused(Config { sectors: 1 << 54, ..fresh(false) }), BlkError::TooLarge(_)));
    for block_size in [0, 256, 513, 768, 8192] {
        assert!(matches!(refused(Config { block_size, ..fresh(false) }), BlkError::BlockSize(_)));
    }
    for serial in ["x".repeat(21), "a\0b".into()] {
        assert!(matches!(refused(Config { serial, ..fresh(false) }), BlkError::Serial { .. }));
    }
}

/// A device that workers serve, and a driver that waits for its interrupt.
struct Machine {
    blk: Blk,
    ring: Ring,
    interrupt: Arc<Interrupt>,
    kick: Arc<vmm_sys_util::eventfd::EventFd>,
}

impl Machine {
    fn start(pool: Pool, config: Config, features: u64) -> Self {
        let memory = Memory::anonymous(2 * HUGE_PAGE).unwrap();
        let mut ring = Ring::new(&memory, RINGS, 16);
        offer_read(&mut ring, 0);
        let interrupt = Arc::new(Interrupt::new().unwrap());
        let mut blk = Blk::new(config, pool).unwrap();
        let (queue, kick) = ring.activate_with_kick(0);
        let queues = vec![queue];
        let activation = Activation { memory, queues, interrupt: Arc::clone(&interrupt), features };
        blk.activate(activation).unwrap();
        Self { blk, ring, interrupt, kick }
    }

    fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Waits for `count` answers.
    fn wait(&mut self, count: usize) -> Vec<(u32, u32)> {
        let mut answers = Vec::new();
        while answers.len() < count {
            match self.ring.used() {
                Some(answer) => answers.push(answer),
                None => wait_for(self.interrupt.irqfd()),
            }
        }
        answers
    }
}

fn wait_for(event: &vmm_sys_util::eventfd::EventFd) {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(borrow(event), rustix::event::PollFlags::IN)];
    let deadline = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&deadline)).unwrap(), 1, "no interrupt came");
    event.read().unwrap();
}

/// A read of the first sector, whose header, data and status are those of the `n`th request.
fn offer_read(ring: &mut Ring, n: u64) {
    let at = n * 0x1000;
    ring.put(HEADER_AT + 0x10_0000 + at, u64::from(VIRTIO_BLK_T_IN));
    ring.put(HEADER_AT + 0x10_0008 + at, 0_u64);
    ring.offer(&[
        Buffer { address: HEADER_AT + 0x10_0000 + at, ..header() },
        Buffer { address: DATA_AT + 0x10_0000 + at, len: 512, writable: true },
        Buffer { address: STATUS_AT + 0x8_0000 + at, ..status() },
    ]);
}

#[test]
fn workers_serve_what_waits_at_the_start_and_what_comes_later_until_reset() {
    let workers = Workers::spawn().unwrap();
    let mut machine = Machine::start(workers.pool(), fresh(false), 0);
    assert_eq!(machine.wait(1), [(0, 513)], "without a kick");
    for n in 1..4 {
        offer_read(&mut machine.ring, n);
        machine.kick();
        assert_eq!(machine.wait(1)[0].1, 513);
    }
    assert!(machine.blk.metrics().contains(&("read_bytes", 4 * 512)));
    machine.blk.reset();
    machine.blk.reset();
    offer_read(&mut machine.ring, 4);
    machine.kick();
    // Another disk is served by the same workers, who have had their turn at the kick then.
    let mut other = Machine::start(workers.pool(), fresh(false), 0);
    assert_eq!(other.wait(1), [(0, 513)]);
    assert_eq!(machine.ring.used(), None);
    // A worker forgets a disk a moment after it has served the last request: the end of all workers is later than that.
    drop(workers);
    assert_eq!(Arc::strong_count(&machine.interrupt), 1, "nobody knows the disk any more");
}

#[test]
fn the_descriptor_of_a_disk_closes_with_it() {
    let workers = Workers::spawn().unwrap();
    let (reader, writer) = pipe().unwrap();
    let config = Config { file: writer, ..fresh(false) };
    let mut machine = Machine::start(workers.pool(), config, 0);
    // A pipe cannot be read at a place: the request fails, and is answered.
    assert_eq!(machine.wait(1), [(0, 1)]);
    machine.blk.reset();
    drop(machine.blk);
    assert_eq!(rustix::io::read(&reader, &mut [0_u8; 1]).unwrap(), 0, "end of file");
}

#[test]
fn a_driver_that_breaks_its_ring_is_told_to_reset() {
    let workers = Workers::spawn().unwrap();
    let mut machine = Machine::start(workers.pool(), fresh(false), 0);
    machine.wait(1);
    // More chains than the ring has entries.
    machine.ring.put(machine.ring.setup.avail + 2, 0x7fff_u16);
    machine.kick();
    // The interrupt of the first answer may come after the answer has been taken from the ring.
    while !machine.interrupt.failed() {
        wait_for(machine.interrupt.irqfd());
    }
    // And again by a driver that does better.
    machine.blk.reset();
    machine.interrupt.reset();
}

#[test]
fn a_disk_never_has_all_workers() {
    let gate = Gate::default();
    assert_eq!([(); 4].map(|()| gate.enter()), [true, true, true, false]);
    assert!(!gate.leave(), "one was sent away: somebody looks again");
    assert!(gate.leave());
    assert!(gate.enter());
    assert_eq!([(); 3].map(|()| gate.leave()), [true; 3]);
    gate.stop();
    assert!(!gate.enter());
}

#[test]
fn a_write_is_safe_at_once_for_a_driver_that_does_not_flush() {
    assert_eq!(Cache::of(0), Cache::Through);
    assert_eq!(Cache::of(1 << VIRTIO_BLK_F_FLUSH), Cache::Back);
    let mut driver = Driver::new(false);
    driver.cache = Cache::Through;
    driver.memory.write_slice(&[5; 512], GuestAddress(DATA_AT)).unwrap();
    assert_eq!(driver.write(0, 512), (1, OK));
    assert_eq!(driver.content()[..512], [5; 512]);
}
