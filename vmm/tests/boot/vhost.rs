//! The network device with the host kernel as its worker: a driver of this program's own in front of a real vhost-net
//! and a tap, without a machine.
//!
//!   registers, rings ──▶ `Slots` ──▶ vhost-net ◀──▶ tap ◀──▶ packet socket

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{Arc, Mutex},
    thread,
};

use bulkhead_protocol::vmm::Slot;
use bulkhead_vmm::{
    devices::{
        interrupt::Interrupt,
        mmio::{Slots, Wires, address},
        net::Net,
    },
    event_loop::EventLoop,
    memory::{HUGE_PAGE, Memory},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_bindings::{
    virtio_config::{VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1},
    virtio_mmio::*,
    virtio_net::VIRTIO_NET_F_MRG_RXBUF,
};
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::host::DEADLINE;

macro_rules! tests {
    ($($name:ident),* $(,)?) => { pub(crate) const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*]; };
}

tests![
    vhost_moves_frames_both_ways_and_says_so_by_interrupt,
    vhost_reports_broken_rings_and_serves_again_after_a_reset,
];

const SLOT: Slot = Slot(8);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const SIZE: u16 = 8;
const WRITABLE: u16 = 2;
const HEADER: usize = 12;
/// A buffer for each queue, behind the rings.
const BUFFERS: u64 = 0x2_0000;
/// Ethernet's least, of a type for experiments.
const FRAME: usize = 60;
const TYPE: [u8; 2] = [0x88, 0xb5];

/// The irqfd of the slot, in the place of KVM.
#[derive(Debug, Clone, Default)]
struct Wire(Arc<Mutex<Option<EventFd>>>);

impl Wires for Wire {
    fn connect(&self, _: Slot, interrupt: &Interrupt, _: &[Arc<EventFd>]) -> io::Result<()> {
        *self.0.lock().unwrap() = Some(interrupt.irqfd().try_clone()?);
        Ok(())
    }
    fn disconnect(&self, _: Slot, _: &Interrupt, _: &[Arc<EventFd>]) {}
}

struct Driver {
    slots: Slots,
    memory: Memory,
    irq: EventFd,
    /// A packet socket on the tap.
    peer: File,
    _event_loop: EventLoop,
}

impl Driver {
    fn new() -> Self {
        let event_loop = EventLoop::spawn().unwrap();
        let memory = Memory::growing(HUGE_PAGE, HUGE_PAGE).unwrap();
        let (tap, peer) = tap();
        let vhost = File::options().read(true).write(true).open("/dev/vhost-net").unwrap();
        let net = Net::new(tap, Some(vhost.into()), MAC, 1500, event_loop.handle()).unwrap();
        let wire = Wire::default();
        let slots = Slots::new(Box::new(wire.clone()), memory.clone());
        slots.plug(SLOT, Box::new(net)).unwrap();
        let irq = wire.0.lock().unwrap().take().unwrap();
        Self { slots, memory, irq, peer, _event_loop: event_loop }
    }

    fn read(&self, register: u32) -> u32 {
        let mut data = [0; 4];
        assert!(self.slots.read(address(SLOT) + u64::from(register), &mut data));
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u32, value: u32) {
        assert!(self.slots.write(address(SLOT) + u64::from(register), &value.to_le_bytes()));
    }

    /// From any state to DRIVER_OK, with empty rings.
    fn start(&self) {
        self.write(VIRTIO_MMIO_STATUS, 0);
        for status in [1, 3] {
            self.write(VIRTIO_MMIO_STATUS, status);
        }
        for (select, features) in [(0, 1 << VIRTIO_NET_F_MRG_RXBUF), (1, 1 << (VIRTIO_F_VERSION_1 - 32))] {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, features);
        }
        self.write(VIRTIO_MMIO_STATUS, 0xb);
        for queue in [RECEIVE, TRANSMIT] {
            let at = ring(queue);
            self.memory.write_slice(&[0; 0x3000], GuestAddress(at)).unwrap();
            self.write(VIRTIO_MMIO_QUEUE_SEL, queue.into());
            self.write(VIRTIO_MMIO_QUEUE_NUM, SIZE.into());
            self.write(VIRTIO_MMIO_QUEUE_DESC_LOW, at as u32);
            self.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, at as u32 + 0x1000);
            self.write(VIRTIO_MMIO_QUEUE_USED_LOW, at as u32 + 0x2000);
            self.write(VIRTIO_MMIO_QUEUE_READY, 1);
        }
        self.write(VIRTIO_MMIO_STATUS, 0xf);
        assert_eq!(self.read(VIRTIO_MMIO_STATUS), 0xf);
    }

    fn put<T: ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    /// Makes a buffer of the first descriptor available, and rings the doorbell; `head` is what the ring names.
    fn offer(&self, queue: u16, address: u64, len: usize, flags: u16, head: u16) {
        let at = ring(queue);
        self.put(at, address);
        self.put(at + 8, len as u32);
        self.put(at + 12, flags);
        let offered: u16 = self.memory.read_obj(GuestAddress(at + 0x1000 + 2)).unwrap();
        self.put(at + 0x1000 + 4 + 2 * u64::from(offered % SIZE), head);
        self.put(at + 0x1000 + 2, offered + 1);
        self.write(VIRTIO_MMIO_QUEUE_NOTIFY, queue.into());
    }

    fn used(&self, queue: u16) -> u16 {
        self.memory.read_obj(GuestAddress(ring(queue) + 0x2000 + 2)).unwrap()
    }

    /// Looks at each interrupt until it is so.
    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            wait(&self.irq, what);
            let _ = self.irq.read();
        }
    }

    /// One frame each way.
    fn exchange(&self) {
        let frame = frame(0x11);
        self.memory.write_slice(&[0; HEADER], GuestAddress(BUFFERS)).unwrap();
        self.memory.write_slice(&frame, GuestAddress(BUFFERS + HEADER as u64)).unwrap();
        self.offer(TRANSMIT, BUFFERS, HEADER + FRAME, 0, 0);
        let mut arrived = [0; 2048];
        wait(&self.peer, "a frame from the guest");
        let count = (&self.peer).read(&mut arrived).unwrap();
        assert_eq!(arrived[..count], frame);
        self.until("the frame is taken", |driver| driver.used(TRANSMIT) == 1);

        let frame = self::frame(0x22);
        self.offer(RECEIVE, BUFFERS + 0x1000, 2048, WRITABLE, 0);
        (&self.peer).write_all(&frame).unwrap();
        self.until("a frame for the guest", |driver| driver.used(RECEIVE) == 1);
        let mut received = [0; HEADER + FRAME];
        self.memory.read_slice(&mut received, GuestAddress(BUFFERS + 0x1000)).unwrap();
        let (header, body) = received.split_at(HEADER);
        assert_eq!(header[10..], [1, 0], "one buffer");
        assert_eq!(body, frame);
    }
}

/// Where a queue's rings are: descriptors, 4 KiB on the available ring, 4 KiB on the used ring.
fn ring(queue: u16) -> u64 {
    0x1_0000 + 0x4000 * u64::from(queue)
}

fn frame(fill: u8) -> [u8; FRAME] {
    let mut frame = [fill; FRAME];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&TYPE);
    frame
}

fn wait(fd: &impl AsRawFd, what: &str) {
    // SAFETY: the descriptor is open for as long as `fd` is borrowed.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let deadline = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&deadline)), Ok(1), "{what}");
}

fn checked(result: libc::c_int) -> libc::c_int {
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}

/// A tap that is up in the namespace of this thread, and a socket for the frames of our type on it.
fn tap() -> (OwnedFd, File) {
    // The tap must not speak for itself. A kernel without IPv6 has no such file, and no need of it.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let tap = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: ifreq and sockaddr_ll are plain data for which all zeroes is a valid value; each system call reads or
    // writes the one structure that it is given, which lives here.
    let peer = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..4].copy_from_slice(&b"tap0".map(|byte| byte as libc::c_char));
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        checked(libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request));
        let kind = u16::from_be_bytes(TYPE).to_be();
        let kinds = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let peer = File::from_raw_fd(checked(libc::socket(libc::AF_PACKET, kinds, kind.into())));
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        checked(libc::ioctl(peer.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request));
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = kind;
        address.sll_ifindex = checked(libc::if_nametoindex(c"tap0".as_ptr()).cast_signed());
        let len = size_of_val(&address) as libc::socklen_t;
        checked(libc::bind(peer.as_raw_fd(), (&raw const address).cast(), len));
        peer
    };
    (tap.into(), peer)
}

/// Runs on a thread with a network namespace of its own.
fn apart(work: fn(Driver)) {
    let inside = move || {
        // SAFETY: changes the network namespace of this thread alone; no memory is involved.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNET) });
        work(Driver::new());
    };
    thread::spawn(inside).join().unwrap();
}

fn vhost_moves_frames_both_ways_and_says_so_by_interrupt() {
    apart(|driver| {
        driver.start();
        driver.exchange();
        driver.write(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
        assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
        driver.offer(RECEIVE, BUFFERS + 0x1000, 2048, WRITABLE, 0);
        driver.write(VIRTIO_MMIO_STATUS, 0);
        let used = driver.used(RECEIVE);
        (&driver.peer).write_all(&frame(0x33)).unwrap();
        assert_eq!(driver.used(RECEIVE), used, "the kernel has let go of the ring");
    });
}

fn vhost_reports_broken_rings_and_serves_again_after_a_reset() {
    apart(|driver| {
        let outside = 1 << 40;
        // A descriptor that is none, memory that is none, a buffer to be written that is to be read.
        for (address, flags, head) in [(BUFFERS, 0, SIZE), (outside, 0, 0), (BUFFERS, WRITABLE, 0)] {
            driver.start();
            driver.offer(TRANSMIT, address, HEADER + FRAME, flags, head);
            driver.until("the device asks for a reset", |driver| {
                driver.read(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET != 0
            });
            driver.start();
            driver.exchange();
        }
    });
}
