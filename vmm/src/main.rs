//! `bulkhead-vmm`: started by the sandbox server with its control socket as descriptor 3, or by `bulkhead doctor` to
//! probe KVM. Takes no configuration from its arguments.

use std::{
    os::fd::{FromRawFd, OwnedFd},
    process::ExitCode,
};

use bulkhead_protocol::{
    packet::PacketSocket,
    vmm::{CONTROL_FD, Event, Message},
};
use bulkhead_sys::chain;
use bulkhead_vmm::{
    confine,
    control::{self, Control, ControlError},
    jail::{self, JailError, Side},
    kvm_probe, log,
};

const USAGE: &str = "usage: bulkhead-vmm               serve one microVM; the control socket is descriptor 3
       bulkhead-vmm --probe-kvm   say whether /dev/kvm runs stock guests
       bulkhead-vmm --version";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("descriptor {CONTROL_FD} is no control socket: bulkhead-vmm is started by bulkhead, not by hand")]
    NoControl,
    #[error("close inherited descriptors")]
    Close { source: std::io::Error },
    #[error("install the signal handlers")]
    Signals { source: std::io::Error },
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error(transparent)]
    Control(#[from] ControlError),
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [] => match run() {
            Ok(code) => code,
            Err(error) => {
                log::line(&chain(&error));
                ExitCode::FAILURE
            }
        },
        [option] if option == "--probe-kvm" => match kvm_probe::probe() {
            Ok(()) => {
                println!("/dev/kvm runs stock guests, with interrupts and doorbells");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("/dev/kvm does not run stock guests: {}", chain(&error));
                ExitCode::FAILURE
            }
        },
        [option] if option == "--version" => {
            println!("bulkhead-vmm {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let socket = control_socket()?;
    one_heap();
    confine::prepare().map_err(|source| Error::Signals { source })?;
    end_on_panic();
    match jail::enter() {
        Ok(Side::Inner(inner)) => Ok(Control::new(socket, inner)?.serve()?),
        Ok(Side::Outer { inner }) => {
            // The server's end may be closed already; then the inner process finds out by itself.
            let _ = socket.send(&Message::Event(Event::Started { pid: inner }), &[]);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let _ = control::refuse_boot(&socket, &error);
            Err(error.into())
        }
    }
}

/// Takes descriptor 3 and closes what else the spawner may have left open.
fn control_socket() -> Result<PacketSocket, Error> {
    // SAFETY: nothing in this process has opened a descriptor yet, so nobody else owns number 3, and all above it
    // belong to nobody.
    let (socket, closed) = unsafe {
        (libc::fcntl(CONTROL_FD, libc::F_GETFD), libc::close_range(CONTROL_FD as u32 + 1, u32::MAX, 0))
    };
    if socket < 0 {
        return Err(Error::NoControl);
    }
    if closed != 0 {
        return Err(Error::Close { source: std::io::Error::last_os_error() });
    }
    // SAFETY: the descriptor is open, as fcntl has just said, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    match rustix::net::sockopt::socket_type(&socket) {
        Ok(rustix::net::SocketType::SEQPACKET) => {
            let _ = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC);
            Ok(socket.into())
        }
        _ => {
            // Not ours: leave it as it is.
            std::mem::forget(socket);
            Err(Error::NoControl)
        }
    }
}

/// Makes the C library's allocator use one heap for all threads. With more it reads files under /proc when one shrinks,
/// which is no call for a vCPU to make; and 64 MiB of addresses for each thread are a lot.
fn one_heap() {
    // SAFETY: takes two integers; there are no other threads yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// A thread that panics takes the machine with it: half a VMM is worse than none, and the server hears why. Not by abort(3):
/// this process is pid 1 of its namespace, which such a signal does not end.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| confine::end(panic)));
}
