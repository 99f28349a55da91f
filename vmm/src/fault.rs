//! Last words on a fault of memory: without them the VMM would die, and nobody would know that the host's memory did.
//!
//!   hardware error ─KVM, or the access itself─▶ SIGBUS  ┐
//!   device told to touch memory not plugged ─▶ SIGSEGV ─┴▶ `on_fault` ─▶ one packet, one line on stderr, the end
//!
//! A signal handler may do little: the packets are written beforehand, and it sends one of them. Any other SIGSEGV goes to
//! the handler that was there before, which tells of stack overflows.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bulkhead_protocol::{
    packet::PacketSocket,
    vmm::{Event, GuestExit, Message},
};

use crate::memory::Memory;

/// si_code of linux/asm-generic/siginfo.h: an error in memory that was being used, and one that was only found.
const BUS_MCEERR_AR: i32 = 4;
const BUS_MCEERR_AO: i32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    #[error("write the message for a memory fault")]
    Message { source: serde_json::Error },
    #[error("handle {signal}")]
    Handler { signal: &'static str, source: io::Error },
}

/// What is sent, as a packet and as a line.
#[derive(Debug)]
struct Words {
    packet: Vec<u8>,
    line: Vec<u8>,
}

impl Words {
    fn new(why: &str) -> Result<Self, FaultError> {
        let reason = GuestExit::Vmm(why.to_owned().into());
        let line = format!("bulkhead-vmm: {reason}\n").into_bytes();
        let event = Message::Event(Event::Exited { reason, console_tail: String::new() });
        let packet = serde_json::to_vec(&event).map_err(|source| FaultError::Message { source })?;
        Ok(Self { packet, line })
    }
}

#[derive(Debug)]
struct LastWords {
    control: RawFd,
    used: Words,
    found: Words,
    bus: Words,
    unplugged: Words,
    /// Who handled SIGSEGV before.
    segv: Handler,
}

/// A handler as sigaction(2) returned it.
struct Handler(libc::sigaction);

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handler").field(&self.0.sa_sigaction).finish()
    }
}

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();
/// Where guest memory is in this process.
static GUEST: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

/// Sends last words over `control` from now on, until the process ends. Once in its life.
pub fn handle(control: &PacketSocket) -> Result<(), FaultError> {
    let words = LastWords {
        control: control.as_raw_fd(),
        used: Words::new("the host's memory failed below the guest: a hardware error (BUS_MCEERR_AR)")?,
        found: Words::new("the host found that memory of this VM fails: a hardware error (BUS_MCEERR_AO)")?,
        bus: Words::new("an access to memory that is not there (SIGBUS)")?,
        unplugged: Words::new("the guest pointed a device at memory that it has not plugged")?,
        segv: Handler(current(libc::SIGSEGV)?),
    };
    // A second call keeps the first one's words.
    let _ = LAST_WORDS.set(words);
    install(libc::SIGBUS)?;
    install(libc::SIGSEGV)
}

/// Says where guest memory is, so that a fault there is told from one of this program.
pub(crate) fn watch(memory: &Memory) {
    let regions = || memory.regions().map(|(region, start)| (start as usize, start as usize + region.size));
    GUEST.0.store(regions().map(|(start, _)| start).min().unwrap_or(0), Ordering::Release);
    GUEST.1.store(regions().map(|(_, end)| end).max().unwrap_or(0), Ordering::Release);
}

fn name(signal: i32) -> &'static str {
    if signal == libc::SIGBUS { "SIGBUS" } else { "SIGSEGV" }
}

fn current(signal: i32) -> Result<libc::sigaction, FaultError> {
    // SAFETY: all zeros is a valid `sigaction`: a null handler, an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer asks for the current action, which goes into `action`.
    if unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } != 0 {
        return Err(FaultError::Handler { signal: name(signal), source: io::Error::last_os_error() });
    }
    Ok(action)
}

fn install(signal: i32) -> Result<(), FaultError> {
    // SAFETY: as in `current`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and is safe to run at any moment: see there.
    if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
        return Err(FaultError::Handler { signal: name(signal), source: io::Error::last_os_error() });
    }
    Ok(())
}

/// Calls only what signal-safety(7) allows: send, write, sigaction, _exit. Reads what was written before it was
/// installed, and two atomics.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some(last) = LAST_WORDS.get() else { return };
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler; for these signals it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let words = match (signal, code) {
        (libc::SIGBUS, BUS_MCEERR_AR) => &last.used,
        (libc::SIGBUS, BUS_MCEERR_AO) => &last.found,
        (libc::SIGBUS, _) => &last.bus,
        _ if (GUEST.0.load(Ordering::Acquire)..GUEST.1.load(Ordering::Acquire)).contains(&address) => {
            &last.unplugged
        }
        _ => {
            // The access faults again when this returns, and then it is the other handler's.
            // SAFETY: the action is one that was in force before.
            unsafe { libc::sigaction(signal, &raw const last.segv.0, ptr::null_mut()) };
            return;
        }
    };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: both buffers are valid for their lengths and are never changed; the descriptors are plain numbers.
    unsafe {
        libc::send(last.control, words.packet.as_ptr().cast(), words.packet.len(), flags);
        libc::write(libc::STDERR_FILENO, words.line.as_ptr().cast(), words.line.len());
        libc::_exit(1);
    }
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
