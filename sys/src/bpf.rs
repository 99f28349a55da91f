//! bpf(2): programs that are short enough to be written by hand, and what they are attached to. Numbers and layouts are those of
//! linux/bpf.h; what a kernel is not given of a structure counts as zero.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// One `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination in the low, source in the high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// What a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asked by the kernel of a cgroup whether a device may be used (BPF_PROG_TYPE_CGROUP_DEVICE).
    CgroupDevice,
    /// Asked by the kernel of a network namespace which socket takes a connection (BPF_PROG_TYPE_SK_LOOKUP, Linux 5.9).
    SocketLookup,
}

impl Kind {
    /// BPF_PROG_TYPE_* and the BPF attach type.
    fn numbers(self) -> (u32, u32) {
        match self {
            Self::CgroupDevice => (15, 6),
            Self::SocketLookup => (30, 36),
        }
    }
}

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const LINK_CREATE: libc::c_int = 28;

const MAP_TYPE_SOCKMAP: u32 = 15;
/// Others may attach further programs: all of them must agree.
const ALLOW_MULTI: u32 = 2;
const LICENSE: &CStr = c"Apache-2.0";
/// How often a program is loaded: the verifier gives up with EAGAIN when a signal is pending, such as SIGCHLD.
const ATTEMPTS: usize = 64;

#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Loads a program.
///
/// # Errors
/// Those of bpf(2): EPERM without the capabilities or where the kernel is locked down, EINVAL for a kind that the kernel does not
/// know, EACCES for a program that the verifier does not believe.
pub fn load(kind: Kind, code: &[Instruction]) -> io::Result<OwnedFd> {
    let (program_type, attach_type) = kind.numbers();
    let attributes = LoadAttributes {
        program_type,
        count: u32::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        attach_type,
    };
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        // SAFETY: the attributes have the layout of BPF_PROG_LOAD; `code`, of `count` instructions, and the license outlive the
        // call, which copies them.
        match unsafe { descriptor(PROG_LOAD, &attributes) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && left > 0 => {}
            loaded => return loaded,
        }
    }
}

#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup for as long as that lives, beside those of others.
///
/// # Errors
/// Those of bpf(2).
pub fn attach(cgroup: BorrowedFd<'_>, kind: Kind, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: number(cgroup),
        program: number(program),
        attach_type: kind.numbers().1,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the attributes have the layout of BPF_PROG_ATTACH, without pointers; both descriptors are open.
    unsafe { call(PROG_ATTACH, &attributes) }.map(drop)
}

/// Attaches a program to a network namespace, until the descriptor is closed or the namespace ends.
///
/// # Errors
/// Those of bpf(2).
pub fn link(namespace: BorrowedFd<'_>, kind: Kind, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // BPF_LINK_CREATE has the two in the other order.
    let attributes = AttachAttributes {
        target: number(program),
        program: number(namespace),
        attach_type: kind.numbers().1,
        flags: 0,
    };
    // SAFETY: the attributes have the layout of BPF_LINK_CREATE, without pointers; both descriptors are open.
    unsafe { descriptor(LINK_CREATE, &attributes) }
}

#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

/// Sockets that a program can choose from, by index. The map keeps none of them open.
#[derive(Debug)]
pub struct Sockets(OwnedFd);

#[repr(C)]
struct ElementAttributes {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Sockets {
    /// Room for `entries`.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn new(entries: u32) -> io::Result<Self> {
        let attributes = MapAttributes { kind: MAP_TYPE_SOCKMAP, key_bytes: 4, value_bytes: 4, entries };
        // SAFETY: the attributes have the layout of BPF_MAP_CREATE, without pointers.
        Ok(Self(unsafe { descriptor(MAP_CREATE, &attributes) }?))
    }

    /// Sets entry `index`.
    ///
    /// # Errors
    /// Those of bpf(2); EOPNOTSUPP for a socket that does not listen.
    pub fn set(&self, index: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = number(socket);
        let attributes = ElementAttributes {
            map: number(std::os::fd::AsFd::as_fd(&self.0)),
            _padding: 0,
            key: (&raw const index) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        // SAFETY: the attributes have the layout of BPF_MAP_UPDATE_ELEM; key and value have the four bytes that the map was made
        // with, and outlive the call.
        unsafe { call(MAP_UPDATE_ELEM, &attributes) }.map(drop)
    }
}

impl std::os::fd::AsFd for Sockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// As bpf(2) takes a descriptor.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
/// `T` has the layout of the attributes of `command`, without implicit padding, and what it points to is valid for the call. The
/// command makes a descriptor.
unsafe fn descriptor<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller says.
    let fd = unsafe { call(command, attributes) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// As for `descriptor`.
unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: as the caller says; the size is that of `T`.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
