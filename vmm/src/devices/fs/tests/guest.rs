//! A guest without KVM: writes FUSE messages into guest memory and reads the replies.
//!
//! One request at a time: descriptor 0 is the message, descriptor 1 the room for the reply. `Body` builds the fixed
//! part and the names of a message as the kernel lays them out.

use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use rustix::io::Errno;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::{direct::Served, filter::Filter, locks::Answer, message::FileMemory, slow::is_slow, *};
use crate::{
    devices::queue::{ActiveQueue, QueueSetup},
    memory::Memory,
};

pub(super) const ROOT: u64 = 1;
const RING: u64 = 0x1000;
const MESSAGE: u64 = 0x1_0000;
const REPLY: u64 = 0x10_0000;
const QUEUE: u16 = 8;

/// Opcodes of FUSE (include/uapi/linux/fuse.h).
pub(super) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const GETLK: u32 = 31;
    pub(crate) const SETLK: u32 = 32;
    pub(crate) const SETLKW: u32 = 33;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const SYNCFS: u32 = 50;
    pub(crate) const TMPFILE: u32 = 51;
}

/// The part of a message behind its header.
#[derive(Debug, Default, Clone)]
pub(super) struct Body(pub(super) Vec<u8>);

impl Body {
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn name(mut self, name: &str) -> Self {
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// 0 or a positive errno.
    pub(super) errno: i32,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// The node id of an entry.
    pub(super) fn node(&self) -> u64 {
        assert_eq!(self.errno, 0);
        u64::from_le_bytes(self.body[..8].try_into().unwrap())
    }

    /// The handle of an open.
    pub(super) fn handle(&self) -> u64 {
        self.node()
    }

    /// The handle of a create: behind the entry.
    pub(super) fn created_handle(&self) -> u64 {
        assert_eq!(self.errno, 0);
        u64::from_le_bytes(self.body[128..136].try_into().unwrap())
    }
}

/// Writes rings into memory; shared by the test of the pool.
#[derive(Debug, Default)]
pub(super) struct Driver {
    base: u64,
    available: u16,
}

impl Driver {
    pub(super) fn at(base: u64) -> Self {
        Self { base: base + RING, available: 0 }
    }

    pub(super) fn setup(&self) -> QueueSetup {
        QueueSetup {
            size: QUEUE.into(),
            ready: true,
            descriptors: self.base,
            avail: self.base + 0x1000,
            used: self.base + 0x2000,
        }
    }

    /// Offers a message and room for the reply as one chain.
    pub(super) fn offer(&mut self, memory: &Memory, message: &[u8], room: u32) {
        memory.write_slice(message, GuestAddress(self.base + MESSAGE)).unwrap();
        let next = if room > 0 { 1 } else { 0 };
        self.descriptor(memory, 0, self.base + MESSAGE, message.len() as u32, next);
        self.descriptor(memory, 1, self.base + REPLY, room, 2);
        let avail = self.base + 0x1000;
        memory.write_obj(0_u16, GuestAddress(avail + 4 + 2 * u64::from(self.available % QUEUE))).unwrap();
        self.available = self.available.wrapping_add(1);
        memory.write_obj(self.available, GuestAddress(avail + 2)).unwrap();
    }

    pub(super) fn descriptor(&self, memory: &Memory, at: u64, address: u64, len: u32, flags: u16) {
        let entry = self.base + 16 * at;
        memory.write_obj(address, GuestAddress(entry)).unwrap();
        memory.write_obj(len, GuestAddress(entry + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(entry + 12)).unwrap();
        memory.write_obj(at as u16 + 1, GuestAddress(entry + 14)).unwrap();
    }

    /// The used length, once the request is answered.
    pub(super) fn used(&self, memory: &Memory) -> Option<u32> {
        let used = self.base + 0x2000;
        let index: u16 = memory.read_obj(GuestAddress(used + 2)).unwrap();
        let last = self.available.wrapping_sub(1) % QUEUE;
        let len = GuestAddress(used + 8 + 8 * u64::from(last));
        (index == self.available).then(|| memory.read_obj(len).unwrap())
    }

    pub(super) fn reply(&self, memory: &Memory, len: u32) -> Option<Reply> {
        let mut bytes = vec![0; len as usize];
        memory.read_slice(&mut bytes, GuestAddress(self.base + REPLY)).unwrap();
        if len == 0 {
            return None;
        }
        let body = bytes.split_off(16);
        assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()), len);
        Some(Reply { errno: -i32::from_le_bytes(bytes[4..8].try_into().unwrap()), body })
    }
}

pub(super) fn message(opcode: u32, node: u64, body: Body) -> Vec<u8> {
    let mut message = Body::default()
        .u32(40 + body.0.len() as u32)
        .u32(opcode)
        .u64(7)
        .u64(node)
        .u32(0)
        .u32(0)
        .u32(1)
        .u32(0);
    message.0.extend(body.0);
    message.0
}

/// The same message from another user, whose group has the same number.
pub(super) fn of_user(mut message: Vec<u8>, id: u32) -> Vec<u8> {
    for at in [24, 28] {
        message[at..at + 4].copy_from_slice(&id.to_le_bytes());
    }
    message
}

/// The same message with another number.
pub(super) fn numbered(mut message: Vec<u8>, unique: u64) -> Vec<u8> {
    message[8..16].copy_from_slice(&unique.to_le_bytes());
    message
}

/// FUSE_SUBMOUNTS.
const SUBMOUNTS: u32 = 1 << 27;

pub(super) fn init() -> Vec<u8> {
    init_with(SUBMOUNTS)
}

pub(super) fn init_with(flags: u32) -> Vec<u8> {
    message(op::INIT, 0, Body::default().u32(7).u32(38).u32(0).u32(flags))
}

/// A mounted file system over a directory of its own.
#[derive(Debug)]
pub(super) struct Guest {
    memory: Memory,
    files: Memory<vhost_user_backend::bitmap::BitmapMmapRegion>,
    driver: Driver,
    queue: ActiveQueue,
    server: FileServer,
    pub(super) filter: Filter,
    pub(super) metrics: Arc<FsMetrics>,
    directory: tempfile::TempDir,
    group: Option<Arc<watch::Group>>,
    /// Requests that have waited, and how they ended.
    told: (Sender<Told>, Receiver<Told>),
    _waiters: Waiters,
}

pub(super) type Told = (u64, Result<(), Errno>);

impl Guest {
    pub(super) fn mount(read_only: bool) -> Self {
        Self::with(read_only, false, 1000)
    }

    /// One that may have so many inodes and handles.
    pub(super) fn with_files(read_only: bool, budget: u64) -> Self {
        Self::with(read_only, false, budget)
    }

    pub(super) fn with_strip(strip_setuid: bool) -> Self {
        Self::with(false, strip_setuid, 1000)
    }

    /// One that is to hear of what others change.
    pub(super) fn watching(budget: u64) -> Self {
        Self::made(false, false, budget, watch::group())
    }

    /// Whether somebody else has changed what it keeps, since the last call.
    pub(super) fn others_changed(&self) -> bool {
        self.group.as_ref().unwrap().others_changed()
    }

    fn with(read_only: bool, strip_setuid: bool, budget: u64) -> Self {
        Self::made(read_only, strip_setuid, budget, None)
    }

    fn made(read_only: bool, strip_setuid: bool, budget: u64, group: Option<Arc<watch::Group>>) -> Self {
        let memory = Memory::anonymous(4 << 20).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("share")).unwrap();
        let metrics = Arc::new(FsMetrics::default());
        let root = directory.path().join("share");
        let locks = Arc::<Locks>::default();
        let waiters = Waiters::spawn(&locks).unwrap();
        let files = Passthrough::new(root, proc_self_fd(), budget, locks, group.clone());
        let strip = Strip::new(strip_setuid, Arc::clone(&metrics));
        let filter = Filter::new(Arc::new(files), read_only, strip, Arc::clone(&metrics));
        // The test's own thread serves.
        filter.prepare_thread().unwrap();
        let driver = Driver::at(0);
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let queue = driver.setup().activate(1, 1024, false, kick, &*memory).unwrap();
        let server = FileServer::new(filter.clone(), Arc::clone(&metrics));
        let files = memory.view().unwrap();
        let (told, _waiters) = (channel(), waiters);
        let mut guest =
            Self { memory, files, driver, queue, server, filter, metrics, directory, group, told, _waiters };
        assert_eq!(guest.raw(&init(), 4096).unwrap().errno, 0);
        guest
    }

    /// The served directory, as the host sees it.
    pub(super) fn share(&self) -> PathBuf {
        self.directory.path().join("share")
    }

    /// What lies beside the share, and must never change.
    pub(super) fn outside(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn call(&mut self, opcode: u32, node: u64, body: Body) -> Reply {
        self.raw(&message(opcode, node, body), 64 << 10).unwrap()
    }

    /// Mounts anew, as a kernel that has all of these features.
    pub(super) fn remount(&mut self, features: u32) {
        assert_eq!(self.raw(&init_with(SUBMOUNTS | features), 4096).unwrap().errno, 0);
    }

    /// The end of a request that waited.
    pub(super) fn told(&self) -> Told {
        self.told.1.recv_timeout(std::time::Duration::from_secs(60)).unwrap()
    }

    /// None if the chain came back without a reply, or its request waits.
    pub(super) fn raw(&mut self, message: &[u8], room: u32) -> Option<Reply> {
        self.driver.offer(&self.memory, message, room);
        let memory: &FileMemory = &self.files;
        let chain = self.queue.pop(memory).unwrap().unwrap();
        let head = chain.head_index();
        let tell = self.told.0.clone();
        let answer = |unique| -> Answer { Box::new(move |result| tell.send((unique, result)).unwrap()) };
        let len = match self.server.serve(memory, chain, answer) {
            Served::Now(len) => len,
            Served::Later => 0,
        };
        self.queue.push(memory, head, len).unwrap();
        assert!(len <= room);
        self.driver.reply(&self.memory, len)
    }

    /// What the workers take such a message for.
    pub(super) fn is_slow(&mut self, message: &[u8]) -> bool {
        self.driver.offer(&self.memory, message, 4096);
        let chain = self.queue.pop(self.files.clone()).unwrap().unwrap();
        let head = chain.head_index();
        let slow = is_slow(&self.files, chain);
        let memory: &FileMemory = &self.files;
        self.queue.push(memory, head, 0).unwrap();
        self.driver.reply(&self.memory, 0);
        slow
    }

    pub(super) fn lookup(&mut self, name: &str) -> u64 {
        self.call(op::LOOKUP, ROOT, Body::default().name(name)).node()
    }

    pub(super) fn open(&mut self, node: u64, flags: i32) -> Reply {
        self.call(op::OPEN, node, Body::default().u32(flags as u32).u32(0))
    }

    pub(super) fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Reply {
        let body = Body::default().u64(handle).u64(offset).u32(size).u32(0).u64(0).u32(0).u32(0);
        self.call(op::READ, node, body)
    }

    pub(super) fn write(&mut self, node: u64, handle: u64, offset: u64, bytes: &[u8]) -> Reply {
        let size = bytes.len() as u32;
        let body = Body::default().u64(handle).u64(offset).u32(size).u32(0).u64(0).u32(0).u32(0);
        self.call(op::WRITE, node, body.bytes(bytes))
    }
}

pub(super) fn proc_self_fd() -> File {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open("/proc/self/fd")
        .unwrap()
}
