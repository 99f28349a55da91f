//! The sandbox server's words to `bulkhead-vmm` and back, one JSON packet each (`packet`), descriptors beside them.
//!
//!   server ──spawn, control socket as fd 3──▶ vmm
//!   vmm ──Event::Started {pid}──▶ server          sent by the outer process of the jail; pid is the jailed child
//!   server ──Request::Boot + fds──▶ vmm ──Event::Stamp…, then Reply──▶ server
//!   server ──Request…──▶ vmm ──Reply──▶ server    one reply to each request, in order; events come in between
//!   vmm ──Event::Exited──▶ server, then the socket closes
//!
//! The VMM opens nothing by path: kernel, initramfs, /dev/kvm, the share and all sockets are descriptors of the
//! packet, named by their index in it. The control socket closing ends the VMM at once, and the other way round.

use serde::{Deserialize, Serialize};

use crate::timeline::Stamp;

/// The descriptor on which `bulkhead-vmm` finds its control socket (SOCK_SEQPACKET).
pub const CONTROL_FD: i32 = 3;

/// Index into the descriptors that came with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fd(pub u8);

/// Index into the slot array: `virtio-mmio.N` in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot(pub u8);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Must be first, comes once. The reply comes when the vCPUs run.
    Boot(Box<Machine>),
    /// Gives an empty slot a device; the agent then binds it.
    Plug { slot: Slot, device: Device },
    /// Empties a slot; the agent has unbound it before.
    Unplug { slot: Slot },
    /// The guest's memory in MiB, `Machine::memory_mib` to `max_memory_mib`. The reply says that the guest was told;
    /// what it has plugged is `mem.plugged_bytes` of `Metrics`.
    ResizeMemory { mib: u32 },
    /// Closes all files that the guest has of a directory in the share's root, which is unmounted already: a container's,
    /// by its id. What the guest still knows of it is stale from then on.
    Revoke { directory: String },
    /// Counters of the machine and its devices.
    Metrics,
    /// Ends the VM at once; the reply comes before the exit event.
    Stop,
}

/// A machine to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Guest memory at boot; `limits::MEMORY_MIB`.
    pub memory_mib: u32,
    /// What it may grow to by `Device::Mem`, at least `memory_mib`; room that is never used costs addresses only.
    pub max_memory_mib: u32,
    /// vCPUs online at boot, 1 to `max_vcpus`.
    pub vcpus: u8,
    /// vCPUs created, at most `limits::VCPUS`.
    pub max_vcpus: u8,
    /// /dev/kvm.
    pub kvm: Fd,
    /// vmlinux: ELF with a PVH note.
    pub kernel: Fd,
    /// Uncompressed cpio.
    pub initramfs: Fd,
    /// The pod's share directory: becomes the VMM's root, and what the fs device serves.
    pub share: Fd,
    /// Devices of the boot, each in its own slot; the other slots are placeholders.
    pub devices: Vec<(Slot, Device)>,
    /// Guest kernel messages on the console, all levels; without it only errors.
    pub debug_console: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Device {
    /// hvc0. Its output is kept (the tail goes into `Exited`), and copied to `log` when given.
    Console {
        log: Option<Fd>,
    },
    /// `listener`: a listening unix stream socket that takes `CONNECT port\n` and answers `OK port\n`.
    /// `ports`: the only ports the guest may connect to, each served once by a connected stream socket.
    Vsock {
        listener: Fd,
        ports: Vec<GuestPort>,
    },
    /// virtio-fs over the jail's root directory.
    Fs {
        tag: String,
        read_only: bool,
    },
    Rng,
    /// Memory that the guest does not use goes back to the host; it is never asked to give any.
    Balloon,
    /// The room between `Machine::memory_mib` and `max_memory_mib`, which `ResizeMemory` fills.
    Mem,
    /// An Ethernet device with the given address. `tap`: attached with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR. `vhost`: a
    /// fresh /dev/vhost-net; with it the host kernel moves the frames, else the VMM does.
    Net {
        tap: Fd,
        vhost: Option<Fd>,
        mac: [u8; 6],
        mtu: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestPort {
    pub port: u32,
    pub socket: Fd,
}

/// VMM to server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    Reply(Result<Reply, Failure>),
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    Booted,
    Done,
    /// name → value; names are `<device>.<counter>`.
    Metrics(Vec<(String, u64)>),
}

/// A request that was refused or failed: the chain of causes in one text, and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request is wrong in itself, or not now.
    Invalid,
    /// The kernel or initramfs cannot be loaded.
    Image,
    /// Guest memory too small for the kernel and initramfs, or not to be had.
    Memory,
    /// KVM refused.
    Kvm,
    /// The jail could not be closed.
    Jail,
    /// A device refused its configuration.
    Device,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The pid of the jailed process, in the pid namespace that the VMM was started in.
    Started {
        pid: u32,
    },
    Stamp(Stamp),
    /// The VM is over. The process exits after this.
    Exited {
        reason: GuestExit,
        console_tail: String,
    },
}

/// Why a VM is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum GuestExit {
    /// The guest reset itself (`reboot=t`: a triple fault): its kernel crashed without a word, or its agent gave up.
    #[error("the guest reset itself")]
    Reset,
    /// The guest kernel panicked: seen on the console before the reset.
    #[error("the guest kernel panicked")]
    Panic,
    /// KVM cannot go on (KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_FAIL_ENTRY, an unknown exit).
    #[error("KVM stopped the guest: {0}")]
    Kvm(String),
    /// `Request::Stop`.
    #[error("stopped by the host")]
    Stopped,
    /// The VMM itself failed.
    #[error("the VMM failed: {0}")]
    Vmm(String),
}
