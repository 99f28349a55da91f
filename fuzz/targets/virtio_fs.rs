//! A hostile guest against the file server: FUSE messages in chains of any shape, while the host works in the share as well.
//!
//! Nothing outside of the share changes, no request stays without an answer, and an answer fits its room.

#![no_main]

use std::{
    fs::{self, File},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::Path,
    sync::{Arc, Once},
};

use arbitrary::Arbitrary;
use bulkhead_fuzz::{Buffer, Descriptor, Ring};
use bulkhead_vmm::{
    devices::{
        device::{Activation, VirtioDevice as _},
        fs::{Config, Fs, Shares},
        interrupt::Interrupt,
    },
    memory::Memory,
};
use libfuzzer_sys::fuzz_target;
use rustix::process::{Resource, Rlimit, setrlimit};
use vm_memory::{Bytes as _, GuestAddress};

const HIPRIO: u64 = 0x1000;
const REQUESTS: u64 = 0x8000;
const MESSAGE: u64 = 0x2_0000;
const SECOND: u64 = 0x4_0000;
const REPLY: u64 = 0x10_0000;
/// Bytes of a message's fixed header and of a reply's.
const IN_HEADER: u32 = 40;
const OUT_HEADER: u32 = 16;
const MAX_STEPS: usize = 64;
/// The largest file that a guest may make here.
const FILE_MAX: u64 = 1 << 20;
const NAMES: [&str; 13] = [
    "a",
    "b",
    "dir",
    "file",
    "link",
    "out",
    "..",
    ".",
    "",
    "a/b",
    "../secret",
    "user.attribute",
    "system.posix_acl_access",
];
const SETLKW: u32 = 33;
const INTERRUPT: u32 = 36;
/// FUSE_SUBMOUNTS, FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS, FUSE_DONT_MASK, FUSE_POSIX_ACL, FUSE_SETXATTR_EXT.
const FEATURES: u32 = 1 << 27 | 1 << 1 | 1 << 10 | 1 << 6 | 1 << 20 | 1 << 29;
/// The number of all requests.
const UNIQUE: u64 = 7;

#[derive(Debug, Arbitrary)]
struct Input {
    read_only: bool,
    strip_setuid: bool,
    exclusive_rootfs: bool,
    files: u8,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Message {
        opcode: u8,
        node: u8,
        body: Vec<Piece>,
        room: u16,
        hiprio: bool,
        length: Option<u32>,
    },
    Lookup {
        node: u8,
        name: u8,
    },
    Create {
        node: u8,
        name: u8,
        flags: u32,
        mode: u16,
    },
    Open {
        node: u8,
        flags: u32,
    },
    /// GETLK, SETLK or SETLKW.
    Lock {
        node: u8,
        handle: u8,
        owner: u8,
        start: u8,
        end: u64,
        kind: u8,
        flock: bool,
    },
    Chain {
        message: Vec<u8>,
        descriptors: Vec<Descriptor>,
        head: u8,
        hiprio: bool,
    },
    /// The host changes the share.
    Host {
        work: u8,
    },
    Revoke {
        name: u8,
    },
    /// The driver resets the device and mounts anew.
    Reset,
}

/// A part of a message's body.
#[derive(Debug, Arbitrary)]
enum Piece {
    Word(u32),
    Long(u64),
    Name(u8),
    Node(u8),
    Handle(u8),
    Bytes(Vec<u8>),
}

struct Guest {
    memory: Memory,
    interrupt: Arc<Interrupt>,
    device: Fs,
    rings: [Ring; 2],
    /// Numbers that the device gave out: nodes or handles.
    known: Vec<u64>,
}

impl Guest {
    fn new(device: Fs) -> Self {
        let memory = Memory::anonymous(4 << 20).expect("guest memory");
        let interrupt = Arc::new(Interrupt::new().expect("an interrupt"));
        let rings =
            [Ring::new(&memory, &interrupt, HIPRIO, 16), Ring::new(&memory, &interrupt, REQUESTS, 16)];
        let mut guest = Self { memory, interrupt, device, rings, known: vec![1] };
        guest.activate();
        guest
    }

    fn activate(&mut self) {
        let queues = self.rings.iter().enumerate().map(|(index, ring)| ring.activate(index)).collect();
        let (memory, interrupt) = (self.memory.clone(), Arc::clone(&self.interrupt));
        let activation = Activation { memory, queues, interrupt, features: 0 };
        self.device.activate(activation).expect("activate the device");
        self.known = vec![1];
        // INIT: version 7.38.
        let body: Vec<u8> = [7, 38, 0, FEATURES].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        self.call(26, 0, &body, 4096, false, None);
    }

    fn reset(self) -> Self {
        let mut device = self.device;
        device.reset();
        Self::new(device)
    }

    fn number(&self, index: u8) -> u64 {
        self.known[usize::from(index) % self.known.len()]
    }

    /// Sends one message and waits for its answer.
    fn call(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        room: u32,
        hiprio: bool,
        length: Option<u32>,
    ) -> bool {
        self.send((opcode, node), body, (MESSAGE, room), hiprio, length);
        if opcode == SETLKW {
            // It may wait for ever.
            self.send((INTERRUPT, 0), &UNIQUE.to_le_bytes(), (SECOND, 0), true, None);
            if !hiprio && self.rings[0].wait() {
                self.rings[0].take_used();
            }
        }
        let ring = &mut self.rings[usize::from(!hiprio)];
        if !ring.wait() {
            return false;
        }
        for (_, written) in ring.take_used() {
            assert!(written <= room, "an answer of {written} bytes in {room}");
            self.learn(written);
        }
        true
    }

    /// Offers one message, which is put at an address, with room for an answer.
    fn send(
        &mut self,
        (opcode, node): (u32, u64),
        body: &[u8],
        (address, room): (u64, u32),
        hiprio: bool,
        length: Option<u32>,
    ) {
        let length = length.unwrap_or(IN_HEADER + body.len() as u32);
        let mut message: Vec<u8> = Vec::new();
        for word in [length, opcode] {
            message.extend(word.to_le_bytes());
        }
        message.extend(UNIQUE.to_le_bytes());
        message.extend(node.to_le_bytes());
        message.extend([0; 8]);
        message.extend(1_u32.to_le_bytes());
        message.extend([0; 4]);
        message.extend(body);
        self.memory.write_slice(&message, GuestAddress(address)).expect("in guest memory");
        let message = Buffer { address, length: message.len() as u32, writable: false };
        let reply = Buffer { address: REPLY, length: room, writable: true };
        let ring = &mut self.rings[usize::from(!hiprio)];
        if room == 0 {
            ring.offer(&[message])
        } else {
            ring.offer(&[message, reply])
        }
        ring.kick();
    }

    /// Keeps the numbers in a good answer: an entry or a handle at its start, a handle behind an entry.
    fn learn(&mut self, written: u32) {
        let error: u32 = self.memory.read_obj(GuestAddress(REPLY + 4)).expect("in guest memory");
        if error != 0 || self.known.len() > 32 {
            return;
        }
        for offset in [0, 128] {
            if written >= OUT_HEADER + offset + 8 {
                let at = GuestAddress(REPLY + u64::from(OUT_HEADER + offset));
                self.known.push(self.memory.read_obj(at).expect("in guest memory"));
            }
        }
    }

    /// False when the device asks for a reset.
    fn step(&mut self, step: &Step, share: &Path, shares: &Shares) -> bool {
        match step {
            Step::Message { opcode, node, body, room, hiprio, length } => {
                let mut bytes: Vec<u8> = Vec::new();
                for piece in body.iter().take(16) {
                    self.lay(piece, &mut bytes);
                }
                self.call((*opcode).into(), self.number(*node), &bytes, (*room).into(), *hiprio, *length)
            }
            Step::Lookup { node, name } => {
                self.call(1, self.number(*node), &named(&[], *name), 4096, false, None)
            }
            Step::Create { node, name, flags, mode } => {
                let body = named(&[*flags, (*mode).into(), 0, 0], *name);
                self.call(35, self.number(*node), &body, 4096, false, None)
            }
            Step::Open { node, flags } => {
                let body: Vec<u8> = [*flags, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
                self.call(14, self.number(*node), &body, 4096, false, None)
            }
            Step::Lock { node, handle, owner, start, end, kind, flock } => {
                let mut body = self.number(*handle).to_le_bytes().to_vec();
                for long in [u64::from(*owner % 4), (*start).into(), *end] {
                    body.extend(long.to_le_bytes());
                }
                for word in [u32::from(*kind / 3 % 4), 1, (*flock).into(), 0] {
                    body.extend(word.to_le_bytes());
                }
                let opcode = SETLKW - u32::from(*kind % 3);
                self.call(opcode, self.number(*node), &body, 4096, false, None)
            }
            Step::Chain { message, descriptors, head, hiprio } => {
                let message = &message[..message.len().min(4096)];
                self.memory.write_slice(message, GuestAddress(MESSAGE)).expect("in guest memory");
                let ring = &mut self.rings[usize::from(!hiprio)];
                ring.offer_raw(descriptors, (*head).into(), MESSAGE);
                ring.kick();
                // Descriptors may lead a reply into the rings, which say nothing any more.
                ring.look();
                false
            }
            Step::Host { work } => {
                host(share, *work);
                true
            }
            Step::Revoke { name } => {
                shares.revoke(NAMES[usize::from(*name) % NAMES.len()]);
                true
            }
            Step::Reset => false,
        }
    }

    fn lay(&self, piece: &Piece, bytes: &mut Vec<u8>) {
        match piece {
            Piece::Word(word) => bytes.extend(word.to_le_bytes()),
            Piece::Long(long) => bytes.extend(long.to_le_bytes()),
            Piece::Name(name) => bytes.extend(named(&[], *name)),
            Piece::Node(index) | Piece::Handle(index) => bytes.extend(self.number(*index).to_le_bytes()),
            Piece::Bytes(more) => bytes.extend(more.iter().take(4096)),
        }
    }
}

/// Words and a name behind them, as many messages have it.
fn named(words: &[u32], name: u8) -> Vec<u8> {
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    body.extend(NAMES[usize::from(name) % NAMES.len()].as_bytes());
    body.push(0);
    body
}

/// What others do in the share meanwhile. It may fail as it likes.
fn host(share: &Path, work: u8) {
    let path = share.join(["a", "b", "dir", "file"][usize::from(work) % 4]);
    let _ = match work / 4 % 5 {
        // Not through a link of the guest's.
        0 => File::options().write(true).create(true).custom_flags(libc::O_NOFOLLOW).open(path).map(drop),
        1 => fs::create_dir(path),
        2 => fs::remove_file(path),
        3 => fs::remove_dir_all(path),
        _ => symlink("../secret", path),
    };
}

/// Files stay small, and too large ones are an error instead of a signal.
fn limit_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = Rlimit { current: Some(FILE_MAX), maximum: Some(FILE_MAX) };
        setrlimit(Resource::Fsize, limit).expect("limit the size of files");
        // SAFETY: SIG_IGN is a disposition without a handler.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    });
}

fuzz_target!(|input: Input| {
    limit_files();
    // In memory: guests may ask for syncs.
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let share = directory.path().join("share");
    fs::create_dir_all(share.join("dir")).expect("a share");
    fs::write(share.join("file"), "in the share").expect("a file");
    symlink("../secret", share.join("link")).expect("a link");
    fs::write(directory.path().join("secret"), "secret").expect("a secret");
    let shares = Arc::new(Shares::default());
    let proc_self_fd = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open("/proc/self/fd")
        .expect("/proc/self/fd");
    let device = Fs::new(Config {
        tag: "share".into(),
        read_only: input.read_only,
        strip_setuid: input.strip_setuid,
        exclusive_rootfs: input.exclusive_rootfs,
        root: share.to_str().expect("UTF-8").into(),
        proc_self_fd,
        shares: Arc::clone(&shares),
        files: input.files.into(),
    });
    let mut guest = Guest::new(device.expect("the device"));
    for step in input.steps.iter().take(MAX_STEPS) {
        if !guest.step(step, &share, &shares) {
            guest = guest.reset();
        }
    }
    guest.device.reset();
    drop(guest);
    assert_eq!(fs::read(directory.path().join("secret")).expect("the secret"), b"secret");
    assert_eq!(
        fs::read_dir(directory.path()).expect("the directory").count(),
        2,
        "a file outside of the share"
    );
});
