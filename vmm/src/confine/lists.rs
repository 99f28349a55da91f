//! What each kind of thread may call: the lists that `build.rs` makes the filters of.
//!
//!   a `Rule` allows one system call, for all arguments or for those it names; a call without a rule ends the process
//!
//! A list says what the recording of `tests/record-calls.sh` saw (`recorded.txt` beside this file), and nothing else but
//! for a reason: `unseen`. Arguments are named where the call is more than one call (ioctl, fcntl, prctl) and where a value
//! would undo another wall (executable memory). This file knows libc alone: it is compiled into the build script too.

/// The system calls of one kind at most, but for file workers: the operations of a file server are the kernel's own.
pub const MOST: usize = 40;

/// The kinds of threads that run while the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The main thread: the control socket, and devices that come and go.
    Control,
    /// The device loop.
    Devices,
    /// A vCPU. It also activates and resets devices, when the driver asks for it.
    Vcpu,
    /// A worker of the file server.
    Files,
    /// One that waits for locks on files, which others have opened, or for changes of files, which others have marked.
    Locks,
    /// A worker of the disks, which have their files already.
    Disks,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Control, Self::Devices, Self::Vcpu, Self::Files, Self::Locks, Self::Disks];

    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Devices => "devices",
            Self::Vcpu => "vcpu",
            Self::Files => "files",
            Self::Locks => "locks",
            Self::Disks => "disks",
        }
    }

    pub fn rules(self) -> impl Iterator<Item = &'static Rule> {
        let own: &[Rule] = match self {
            Self::Control => CONTROL,
            Self::Devices => DEVICES,
            Self::Vcpu => VCPU,
            Self::Files => FILES,
            Self::Locks => LOCKS,
            Self::Disks => DISKS,
        };
        EVERY.iter().chain(own)
    }
}

/// Allows one system call.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub call: i64,
    /// All must hold.
    pub arguments: &'static [Argument],
    /// Why it is here though the recording need not show it.
    pub unseen: Option<&'static str>,
}

/// The lower 32 bits of an argument, counted from 0, are `value` under `mask`.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    pub index: u8,
    pub mask: u32,
    pub value: u32,
}

impl Rule {
    const fn unseen(mut self, why: &'static str) -> Self {
        self.unseen = Some(why);
        self
    }
}

const fn any(call: i64) -> Rule {
    Rule { call, arguments: &[], unseen: None }
}

const fn only(call: i64, arguments: &'static [Argument]) -> Rule {
    Rule { call, arguments, unseen: None }
}

const fn is(index: u8, value: u32) -> Argument {
    Argument { index, mask: u32::MAX, value }
}

const fn has(index: u8, bits: u32) -> Argument {
    Argument { index, mask: bits, value: bits }
}

const fn has_not(index: u8, bits: u32) -> Argument {
    Argument { index, mask: bits, value: 0 }
}

macro_rules! ioctl {
    ($request:expr) => {
        only(libc::SYS_ioctl, &[is(1, $request)])
    };
}

/// asm-generic/ioctl.h: an operation that the process writes an argument of `size` bytes for, or reads one by.
const fn write_request(group: u8, number: u8, size: u32) -> u32 {
    1 << 30 | size << 16 | (group as u32) << 8 | number as u32
}

const fn read_request(group: u8, number: u8, size: u32) -> u32 {
    2 << 30 | size << 16 | (group as u32) << 8 | number as u32
}

const KVM: u8 = 0xae;
const KVM_CHECK_EXTENSION: u32 = (KVM as u32) << 8 | 0x03;
const KVM_SET_USER_MEMORY_REGION: u32 = write_request(KVM, 0x46, 32);
const KVM_IRQFD: u32 = write_request(KVM, 0x76, 32);
const KVM_IOEVENTFD: u32 = write_request(KVM, 0x79, 64);
const KVM_RUN: u32 = (KVM as u32) << 8 | 0x80;
const KVM_GET_REGS: u32 = read_request(KVM, 0x81, 144);
const KVM_GET_SREGS: u32 = read_request(KVM, 0x83, 312);
const KVM_GET_VCPU_EVENTS: u32 = read_request(KVM, 0x9f, 64);

const VHOST: u8 = 0xaf;
const VHOST_GET_FEATURES: u32 = read_request(VHOST, 0x00, 8);
const VHOST_SET_FEATURES: u32 = write_request(VHOST, 0x00, 8);
const VHOST_SET_OWNER: u32 = (VHOST as u32) << 8 | 0x01;
const VHOST_SET_MEM_TABLE: u32 = write_request(VHOST, 0x03, 8);
const VHOST_SET_VRING_NUM: u32 = write_request(VHOST, 0x10, 8);
const VHOST_SET_VRING_ADDR: u32 = write_request(VHOST, 0x11, 40);
const VHOST_SET_VRING_BASE: u32 = write_request(VHOST, 0x12, 8);
const VHOST_SET_VRING_KICK: u32 = write_request(VHOST, 0x20, 8);
const VHOST_SET_VRING_CALL: u32 = write_request(VHOST, 0x21, 8);
const VHOST_SET_VRING_ERR: u32 = write_request(VHOST, 0x22, 8);
const VHOST_NET_SET_BACKEND: u32 = write_request(VHOST, 0x30, 8);

const TUNSETOFFLOAD: u32 = libc::TUNSETOFFLOAD as u32;
const TUNSETVNETHDRSZ: u32 = libc::TUNSETVNETHDRSZ as u32;
const FIONBIO: u32 = libc::FIONBIO as u32;

const EXEC: u32 = libc::PROT_EXEC as u32;
const ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;
/// The signal that makes a vCPU leave the guest: SIGRTMIN of the C library.
const STOP_SIGNAL: u32 = 34;
/// The signal that makes a thread leave its wait for a lock: the next one.
const WAKE_SIGNAL: u32 = 35;
/// fcntl(2)'s numbers for locks of open file descriptions.
const F_OFD_GETLK: u32 = libc::F_OFD_GETLK as u32;
const F_OFD_SETLK: u32 = libc::F_OFD_SETLK as u32;
const F_OFD_SETLKW: u32 = libc::F_OFD_SETLKW as u32;

/// fanotify_mark(2): a mark is taken away.
const UNMARK: Rule = only(libc::SYS_fanotify_mark, &[has(1, libc::FAN_MARK_REMOVE)])
    .unseen("the last one who has a directory that was taken from the guest");

const ALLOCATOR: &str = "the allocator, which decides by what it has at hand";
const RUNTIME: &str = "the language's runtime and the C library, on their rarer paths";
const CLOCK: &str = "where the clock source has no vDSO";
const GROWN: &str = "a device that is activated when its driver binds, or one that resets";
const CRASH: &str = "what the registers held when the guest reset itself";
const PROTOCOL: &str = "an operation of the file protocol, which any guest may ask for";
const NOT_ROOT: &str = "a new file of a user of the guest that is not root";
const WAKE: &str = "the end of a wait for a lock";
const CHECKED: &str = "builds with debug assertions look at a descriptor before they close it";
const SIGNALS: &str = "after a signal handler, and after a stop by the freezer or a debugger";

/// What the allocator, the runtime, a message to the log and the end of a thread take.
const EVERY: &[Rule] = &[
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_close),
    only(libc::SYS_fcntl, &[is(1, libc::F_GETFD as u32)]).unseen(CHECKED),
    any(libc::SYS_futex),
    only(libc::SYS_mmap, &[has_not(2, EXEC), has(3, ANONYMOUS)]),
    any(libc::SYS_munmap),
    only(libc::SYS_mprotect, &[has_not(2, EXEC)]).unseen(ALLOCATOR),
    only(libc::SYS_mremap, &[is(3, libc::MREMAP_MAYMOVE as u32)]).unseen(ALLOCATOR),
    any(libc::SYS_brk).unseen(ALLOCATOR),
    only(libc::SYS_madvise, &[is(2, libc::MADV_DONTNEED as u32)]).unseen(ALLOCATOR),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn).unseen(SIGNALS),
    any(libc::SYS_restart_syscall).unseen(SIGNALS),
    any(libc::SYS_exit).unseen("the end of a thread"),
    any(libc::SYS_exit_group).unseen("the end of the process, also after a panic"),
    any(libc::SYS_clock_gettime).unseen(CLOCK),
    any(libc::SYS_clock_nanosleep).unseen("a pause before what failed is tried again"),
    any(libc::SYS_sched_yield).unseen(RUNTIME),
    any(libc::SYS_getrandom).unseen(RUNTIME),
    any(libc::SYS_ppoll).unseen("the log of the console, which nobody waits for"),
];

const CONTROL: &[Rule] = &[
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendmsg),
    ioctl!(KVM_IRQFD),
    ioctl!(KVM_IOEVENTFD),
    ioctl!(KVM_SET_USER_MEMORY_REGION),
    ioctl!(KVM_CHECK_EXTENSION).unseen("kvm-ioctls asks before it adds memory"),
    ioctl!(VHOST_SET_OWNER),
    ioctl!(VHOST_GET_FEATURES),
    ioctl!(VHOST_NET_SET_BACKEND).unseen(GROWN),
    ioctl!(FIONBIO),
    ioctl!(TUNSETVNETHDRSZ),
    ioctl!(TUNSETOFFLOAD),
    any(libc::SYS_eventfd2),
    any(libc::SYS_epoll_ctl).unseen("a disk that is unplugged before its driver has let go of it"),
    only(libc::SYS_fcntl, &[is(1, libc::F_DUPFD_CLOEXEC as u32)]),
    any(libc::SYS_getpid),
    UNMARK,
    only(libc::SYS_tgkill, &[is(2, STOP_SIGNAL)]),
    only(libc::SYS_tgkill, &[is(2, WAKE_SIGNAL)]).unseen(WAKE),
];

const DEVICES: &[Rule] = &[
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_epoll_pwait2).unseen("for a deadline beyond 24 days"),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendmsg),
    any(libc::SYS_recvfrom),
    any(libc::SYS_sendto),
    any(libc::SYS_accept4),
    any(libc::SYS_shutdown),
];

const VCPU: &[Rule] = &[
    ioctl!(KVM_RUN),
    ioctl!(KVM_GET_REGS).unseen(CRASH),
    ioctl!(KVM_GET_SREGS).unseen(CRASH),
    ioctl!(KVM_GET_VCPU_EVENTS).unseen(CRASH),
    ioctl!(TUNSETOFFLOAD),
    ioctl!(VHOST_SET_FEATURES),
    ioctl!(VHOST_SET_MEM_TABLE),
    ioctl!(VHOST_SET_VRING_NUM),
    ioctl!(VHOST_SET_VRING_ADDR),
    ioctl!(VHOST_SET_VRING_BASE),
    ioctl!(VHOST_SET_VRING_KICK),
    ioctl!(VHOST_SET_VRING_CALL),
    ioctl!(VHOST_SET_VRING_ERR),
    ioctl!(VHOST_NET_SET_BACKEND),
    any(libc::SYS_eventfd2),
    any(libc::SYS_epoll_create1),
    any(libc::SYS_epoll_ctl),
    UNMARK,
    only(libc::SYS_fcntl, &[is(1, libc::F_DUPFD_CLOEXEC as u32)]),
    only(libc::SYS_tgkill, &[is(2, WAKE_SIGNAL)]).unseen(WAKE),
];

const FILES: &[Rule] = &[
    // The queues.
    any(libc::SYS_epoll_create1),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_epoll_ctl),
    // Whose file it is.
    any(libc::SYS_setresuid),
    any(libc::SYS_setresgid),
    any(libc::SYS_setgroups).unseen(PROTOCOL),
    any(libc::SYS_capget).unseen(NOT_ROOT),
    any(libc::SYS_capset).unseen(NOT_ROOT),
    any(libc::SYS_umask),
    // Names.
    any(libc::SYS_openat),
    any(libc::SYS_openat2),
    any(libc::SYS_mkdirat),
    any(libc::SYS_mknodat),
    any(libc::SYS_symlinkat),
    any(libc::SYS_linkat),
    any(libc::SYS_unlinkat),
    any(libc::SYS_renameat2),
    any(libc::SYS_readlinkat),
    any(libc::SYS_getdents64),
    any(libc::SYS_dup),
    any(libc::SYS_fanotify_mark).unseen("a directory of a rootfs, where the host tells of changes"),
    // Attributes.
    any(libc::SYS_statx),
    any(libc::SYS_fstatfs),
    any(libc::SYS_fchmodat),
    any(libc::SYS_fchownat),
    any(libc::SYS_utimensat).unseen(PROTOCOL),
    any(libc::SYS_getxattr),
    any(libc::SYS_setxattr),
    any(libc::SYS_listxattr).unseen(PROTOCOL),
    any(libc::SYS_removexattr).unseen(PROTOCOL),
    // Contents.
    any(libc::SYS_preadv2),
    any(libc::SYS_pwritev2),
    any(libc::SYS_lseek),
    any(libc::SYS_ftruncate).unseen(PROTOCOL),
    any(libc::SYS_fallocate).unseen(PROTOCOL),
    any(libc::SYS_copy_file_range).unseen(PROTOCOL),
    any(libc::SYS_fsync),
    any(libc::SYS_fdatasync).unseen(PROTOCOL),
    any(libc::SYS_syncfs).unseen(PROTOCOL),
    // Locks, none of which is waited for here.
    any(libc::SYS_flock),
    only(libc::SYS_fcntl, &[is(1, F_OFD_GETLK)]).unseen(PROTOCOL),
    only(libc::SYS_fcntl, &[is(1, F_OFD_SETLK)]),
    only(libc::SYS_tgkill, &[is(2, WAKE_SIGNAL)]).unseen(WAKE),
];

const LOCKS: &[Rule] = &[
    any(libc::SYS_flock),
    UNMARK,
    only(libc::SYS_fcntl, &[is(1, F_OFD_SETLKW)]),
    only(libc::SYS_fcntl, &[is(1, F_OFD_SETLK)]),
];

const DISKS: &[Rule] = &[
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_preadv2),
    any(libc::SYS_pwritev2),
    any(libc::SYS_fdatasync),
    any(libc::SYS_fallocate)
        .unseen("a disk's ranges that are discarded or zeroed, which any guest may ask for"),
];
