//! A network namespace of the host as a microVM's network: its interfaces, and the path of frames between them and the VM.
//!
//!   Namespace ─scan─▶ Scan (Ethernet interfaces; addresses, routes, neighbours for the agent)
//!             ├attach▶ interface ◀─tc redirect─▶ tap ◀─descriptor─▶ VMM
//!             └Loopback▶ connections to 127.0.0.1 and ::1 in there, for the guest's loopback
//!
//! The interface keeps its addresses, but every frame that arrives at it goes to the tap, and what the guest sends
//! leaves by it: on the wire the guest is the interface. All of it is done by a thread that enters the namespace and
//! ends there, so nothing else of this process ever leaves its own.

mod attach;
mod devices;
mod loopback;
mod scan;
mod undo;

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bulkhead_sys::namespace::visit_network;
use rtnetlink::Handle;
use rustix::{fs::OFlags, io::Errno};

use crate::store::{NamespaceId, StateError};

pub use attach::{VHOST, attach, open_vhost};
pub use devices::{Moved, check as check_devices, move_in as move_devices};
pub use loopback::{Loopback, Meant};
pub use scan::{Interface, Scan};
pub use undo::{detach, undo};

/// Names of our taps begin so; the kernel puts a number behind it.
const TAP_PREFIX: &str = "bhtap";
/// For everything that one visit to a namespace does; the kernel answers each request at once.
const VISIT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("open network namespace {}", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is not a network namespace", .path.display())]
    NotANamespace { path: PathBuf },
    #[error("{} is the host's own network namespace", .path.display())]
    Host { path: PathBuf },
    #[error("enter the network namespace")]
    Enter { source: io::Error },
    #[error("the network namespace did not answer for {VISIT:?}")]
    Late,
    #[error("list the {what} of the network namespace")]
    List { what: &'static str, source: rtnetlink::Error },
    /// Something of the namespace that a guest cannot be given.
    #[error("{object} of the network namespace is not supported: {reason}")]
    Unsupported { object: String, reason: &'static str },
    #[error(
        "interface {interface} already has an ingress qdisc: another microVM or a traffic filter uses the interface"
    )]
    Busy { interface: String },
    #[error("{step} for interface {interface}")]
    Tap { step: &'static str, interface: String, source: io::Error },
    #[error("{step} of interface {interface}")]
    Step { step: &'static str, interface: String, source: rtnetlink::Error },
    #[error("{step}")]
    Loopback { step: &'static str, source: io::Error },
    #[error("there is no interface {name}")]
    NoInterface { name: String },
    #[error("there is an interface {name} already")]
    NameTaken { name: String },
    /// One of `linux.netDevices`, by its JSON path.
    #[error("{field}")]
    Device { field: String, source: Box<NetworkError> },
    #[error(transparent)]
    Journal(#[from] StateError),
}

impl NetworkError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Open { .. } | Self::NotANamespace { .. } | Self::Host { .. } => {
                Some("give the path of another network namespace, or none for a fresh one")
            }
            Self::Journal(error) => error.hint(),
            Self::Enter { .. }
            | Self::Late
            | Self::List { .. }
            | Self::Unsupported { .. }
            | Self::Busy { .. }
            | Self::Tap { .. }
            | Self::Loopback { .. }
            | Self::NoInterface { .. }
            | Self::NameTaken { .. }
            | Self::Device { .. }
            | Self::Step { .. } => None,
        }
    }
}

/// A network namespace that is held open. Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// Opens the namespace at `path`: a file of /proc/PID/ns, or a place where one is mounted.
    ///
    /// # Errors
    /// When `path` cannot be opened, is no network namespace, or is the host's own.
    pub fn open(path: &Path) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Open { path: path.to_owned(), source };
        // Opening a fifo would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file =
            rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let namespace = Self(Arc::new(file.into()));
        if !namespace.is_network() {
            return Err(NetworkError::NotANamespace { path: path.to_owned() });
        }
        let id = namespace.id().map_err(failed)?;
        // The namespace of this process and that of the first process: a caller may have moved this process.
        for host in ["/proc/self/ns/net", "/proc/1/ns/net"] {
            if std::fs::metadata(host).is_ok_and(|host| NamespaceId::from(&host) == id) {
                return Err(NetworkError::Host { path: path.to_owned() });
            }
        }
        Ok(namespace)
    }

    /// From a descriptor that `open` has checked, in another process.
    pub fn received(fd: std::os::fd::OwnedFd) -> Self {
        Self(Arc::new(fd.into()))
    }

    fn is_network(&self) -> bool {
        // NS_GET_NSTYPE of linux/nsfs.h: an `_IO(0xb7, 3)`, which answers the CLONE_NEW* bit.
        // SAFETY: the operation takes no argument and changes nothing; on another kind of file it is an error.
        let kind = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&*self.0), 0xb703) };
        kind == libc::CLONE_NEWNET
    }

    /// # Errors
    /// As for fstat(2).
    pub fn id(&self) -> io::Result<NamespaceId> {
        Ok(NamespaceId::from(&self.0.metadata()?))
    }

    /// Runs `work` with a netlink socket of the namespace, on a thread of its own that is inside.
    ///
    /// # Errors
    /// Those of `work`, or when the namespace cannot be entered.
    pub fn visit<T: Send>(
        &self,
        work: impl AsyncFnOnce(&Handle) -> Result<T, NetworkError> + Send,
    ) -> Result<T, NetworkError> {
        let enter = |source| NetworkError::Enter { source };
        let inside = || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(enter)?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().map_err(enter)?;
                tokio::spawn(connection);
                tokio::time::timeout(VISIT, work(&handle)).await.unwrap_or(Err(NetworkError::Late))
            })
        };
        visit_network(&*self.0, inside).map_err(enter)?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a process's network namespace has an interface beside `lo`. Reads a file: no thread enters the namespace.
pub fn has_interfaces(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    // Two lines of heading, then `name: counters`.
    text.lines().skip(2).filter_map(|line| line.split_once(':')).any(|(name, _)| name.trim() != "lo")
}

/// The kernel's error number, when it is one.
fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.code.map(|code| Errno::from_raw_os_error(code.get().abs()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
