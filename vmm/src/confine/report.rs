//! The last words of a process that its own thread ends: a forbidden call, a crash, a panic.
//!
//!   SIGSYS, SIGSEGV, SIGBUS, … ─▶ `on_signal` ─┐
//!   panic hook ─▶ `end` ───────────────────────┴▶ one line to stderr ─▶ Event::Exited to the control socket ─▶ _exit
//!
//! A handler may have interrupted anything, so all of this formats into arrays on the stack: no allocation, no lock, and
//! no system call but write(2) and exit_group(2), which are in every list.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use bulkhead_protocol::vmm::CONTROL_FD;

use super::names;
use crate::memory::Memory;

/// What the kernel forces on a thread, also in pid 1 of a namespace.
const SIGNALS: [(libc::c_int, &str); 6] = [
    (libc::SIGSYS, "SIGSYS"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGTRAP, "SIGTRAP"),
];
/// si_code of linux/asm-generic/siginfo.h: an error in memory that was being used, and one that was only found.
pub(super) const BUS_MCEERR_AR: libc::c_int = 4;
pub(super) const BUS_MCEERR_AO: libc::c_int = 5;
/// As the kernel keeps it.
const NAME: usize = 16;
/// Bytes for one text of a handler. The alternate stack has 8 KiB, and the kernel's frame takes half of that where registers
/// are wide.
const HANDLER: usize = 320;
/// Calls of the x32 ABI have it set.
const X32: i64 = 0x4000_0000;

thread_local! {
    /// Constant and without a destructor: reading it in a handler is a load.
    static THREAD: Cell<Text<NAME>> = const { Cell::new(Text::new()) };
}

/// The addresses of guest memory in this process: the first byte, and the byte behind the last.
static GUEST: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

/// Says where guest memory is, so that a fault there is told from one of this program.
pub(crate) fn watch(memory: &Memory) {
    let regions = || memory.regions().map(|(region, start)| (start as usize, start as usize + region.size));
    GUEST.0.store(regions().map(|(start, _)| start).min().unwrap_or(0), Ordering::Release);
    GUEST.1.store(regions().map(|(_, end)| end).max().unwrap_or(0), Ordering::Release);
}

/// A fault of memory that is not this program's: the host's hardware, or a guest that points a device at nothing.
fn outside_cause(signal: libc::c_int, code: libc::c_int, address: usize) -> Option<&'static str> {
    let guest = || GUEST.0.load(Ordering::Acquire)..GUEST.1.load(Ordering::Acquire);
    match (signal, code) {
        (libc::SIGBUS, BUS_MCEERR_AR) => {
            Some("the host's memory failed below the guest: a hardware error (BUS_MCEERR_AR)")
        }
        (libc::SIGBUS, BUS_MCEERR_AO) => {
            Some("the host found that memory of this VM fails: a hardware error (BUS_MCEERR_AO)")
        }
        (libc::SIGSEGV, _) if guest().contains(&address) => {
            Some("the guest pointed a device at memory that it has not plugged")
        }
        _ => None,
    }
}

pub(super) fn name_thread(name: &str) {
    let mut text = Text::new();
    // What does not fit is cut off.
    let _ = text.write_str(name);
    THREAD.set(text);
}

/// Installs the handlers, for all threads. To be called before the first `enter`.
///
/// # Errors
/// The kernel refuses a handler.
pub fn prepare() -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction, whose fields are set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    // On the alternate stack, which the runtime gives every thread: the ordinary one may have overflowed. A second signal
    // inside of the handler ends the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for (signal, _) in SIGNALS {
        // SAFETY: the handler is async-signal-safe (see above) and has the three arguments that SA_SIGINFO promises; the
        // old action is not asked for.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // A file that grows beyond a limit of the caller's is an error for the guest, not the end of the VMM.
    // SAFETY: ignoring a signal installs no code.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the kernel fills in for SIGSYS; libc's `siginfo_t` hides it.
#[repr(C)]
struct SigSys {
    signal: libc::c_int,
    error: libc::c_int,
    code: libc::c_int,
    address: u64,
    call: libc::c_int,
    arch: libc::c_uint,
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if signal == libc::SIGSYS {
        // SAFETY: the kernel passes a siginfo_t of 128 bytes that lives as long as the handler runs; for SIGSYS its first 32
        // are this struct. One that another process sent holds other integers there.
        let SigSys { address, call, .. } = unsafe { info.cast::<SigSys>().read() };
        let mut name = Text::<64>::new();
        let number = i64::from(call);
        let _ = match names::name(number) {
            Some(known) => write!(name, "{known} ({number})"),
            None if number & X32 != 0 => write!(name, "{} of the x32 ABI", number & !X32),
            None => write!(name, "{number}"),
        };
        last_words::<HANDLER>(&Reason::Forbidden { call: name.as_str(), address });
    } else {
        // SAFETY: the kernel passes a ucontext_t that lives as long as the handler runs.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let instruction = registers.get(libc::REG_RIP as usize).copied().unwrap_or(0);
        // SAFETY: the kernel passes a valid siginfo_t; for each of these signals it has an address.
        let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
        let mut what = Text::<128>::new();
        let known = SIGNALS.iter().find(|known| known.0 == signal).map_or("a signal", |known| known.1);
        let _ = match outside_cause(signal, code, address) {
            Some(cause) => write!(what, "{cause}"),
            None => write!(what, "{known} at instruction {instruction:#x}, address {address:#x}"),
        };
        last_words::<HANDLER>(&Reason::Failed { what: what.as_str() });
    }
    exit(128 + signal)
}

/// Ends the process because the VMM itself failed.
pub fn end(what: &impl fmt::Display) -> ! {
    let mut text = Text::<512>::new();
    // What does not fit is cut off.
    let _ = write!(text, "{what}");
    last_words::<1024>(&Reason::Failed { what: text.as_str() });
    exit(1)
}

fn exit(status: libc::c_int) -> ! {
    // SAFETY: ends the process without running anything more of it: it may be in any state.
    unsafe { libc::_exit(status) }
}

/// What `bulkhead_protocol::vmm::GuestExit` says, borrowed.
enum Reason<'a> {
    Forbidden { call: &'a str, address: u64 },
    Failed { what: &'a str },
}

impl Reason<'_> {
    /// As `bulkhead_protocol::vmm::Message` reads it.
    fn packet<const N: usize>(&self, thread: &str) -> Text<N> {
        let mut packet = Text::new();
        let _ = packet.write_str(r#"{"event":{"exited":{"reason":"#);
        let _ = match self {
            Self::Forbidden { call, address } => write!(
                packet,
                r#"{{"forbidden":{{"thread":"{}","call":"{}","address":{address}}}}}"#,
                Plain(thread),
                Plain(call)
            ),
            Self::Failed { what } => {
                write!(packet, r#"{{"vmm":"{}, in its thread {}"}}"#, Plain(what), Plain(thread))
            }
        };
        let _ = packet.write_str(r#","console_tail":""}}}"#);
        packet
    }

    fn line<const N: usize>(&self, thread: &str) -> Text<N> {
        let mut line = Text::new();
        let _ = match self {
            Self::Forbidden { call, address } => writeln!(
                line,
                "bulkhead-vmm: thread {thread} made the system call {call} at {address:#x}, which its filter forbids"
            ),
            Self::Failed { what } => writeln!(line, "bulkhead-vmm: thread {thread}: {}", Plain(what)),
        };
        line
    }
}

/// `N`: room for the packet and for the line, on the stack, one after the other.
fn last_words<const N: usize>(reason: &Reason<'_>) {
    let thread = THREAD.get();
    write(libc::STDERR_FILENO, &reason.line::<N>(thread.as_str()));
    // A server that does not read has given up its VM: the socket has a timeout.
    write(CONTROL_FD, &reason.packet::<N>(thread.as_str()));
}

fn write<const N: usize>(fd: libc::c_int, text: &Text<N>) {
    // SIGPIPE is ignored by the runtime.
    // SAFETY: the kernel reads `len` bytes of an array that outlives the call.
    unsafe { libc::write(fd, text.bytes.as_ptr().cast(), text.len) };
}

/// Text that needs no escaping in JSON.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '"' => f.write_char('\''),
            '\\' => f.write_char('/'),
            ' '..='~' => f.write_char(character),
            _ => f.write_char(' '),
        })
    }
}

/// A string of at most `N` bytes.
#[derive(Clone, Copy)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or("?")
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    /// Takes as many whole characters as fit.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = N - self.len;
        let take = text.floor_char_boundary(room);
        let (Some(to), Some(from)) =
            (self.bytes.get_mut(self.len..self.len + take), text.as_bytes().get(..take))
        else {
            return Err(fmt::Error);
        };
        to.copy_from_slice(from);
        self.len += take;
        if take == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
