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

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{limits, timeline::Stamp};

/// The descriptor on which `bulkhead-vmm` finds its control socket (SOCK_SEQPACKET).
pub const CONTROL_FD: i32 = 3;

/// Index into the descriptors that came with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fd(pub u8);

/// Index into the slot array: `virtio-mmio.N` in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u8);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Must be first, comes once. The reply comes when the vCPUs run.
    Boot(Box<MachineConfig>),
    /// Gives an empty slot a device; the agent then binds it.
    Plug { slot: Slot, device: Device },
    /// Empties a slot; the agent has unbound it before.
    Unplug { slot: Slot },
    /// The guest's memory in MiB, `MachineConfig::memory_mib` to `max_memory_mib`. The reply says that the guest was told;
    /// what it has plugged is `mem.plugged_bytes` of `Metrics`.
    ResizeMemory { mib: u32 },
    /// Raises every device's interrupt once, after the set of online vCPUs has changed: while Linux moves an interrupt from
    /// a CPU that goes away, KVM may drop it, and its device would wait for ever. One too many does no harm.
    Nudge,
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
pub struct MachineConfig {
    /// Guest memory at boot; `limits::MEMORY_MIB`.
    pub memory_mib: u32,
    /// What it may grow to by `Device::Mem`, at least `memory_mib`; room that is never used costs addresses only.
    pub max_memory_mib: u32,
    /// Inodes and open files that the guest may have at once; see `limits::files`.
    pub files: u64,
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
    /// How the host may back guest memory.
    pub huge_pages: HugePages,
    /// The host's clock source is its TSC: the guest may rely on the TSC as well.
    pub stable_tsc: bool,
}

/// Whether guest memory is backed by pages of 2 MiB (transparent huge pages of the host).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HugePages {
    /// Wherever the host finds one: faster, and memory is taken in steps of 2 MiB.
    #[default]
    Always,
    /// Nowhere, whatever the host's own setting is.
    Never,
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
    /// virtio-fs over the jail's root directory. `strip_setuid`: what the guest writes loses setuid, setgid (but of
    /// directories) and file capabilities. `exclusive_rootfs`: what the guest has of a rootfs it may keep until it hears that
    /// somebody else has changed something there.
    Fs {
        tag: String,
        read_only: bool,
        strip_setuid: bool,
        exclusive_rootfs: bool,
    },
    Rng,
    /// Memory that the guest does not use goes back to the host; it is never asked to give any.
    Balloon,
    /// The room between `MachineConfig::memory_mib` and `max_memory_mib`, which `ResizeMemory` fills.
    Mem,
    /// An Ethernet device with the given address. `tap`: attached with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR. `vhost`: a
    /// fresh /dev/vhost-net; with it the host kernel moves the frames, else the VMM does.
    Net {
        tap: Fd,
        vhost: Option<Fd>,
        mac: [u8; 6],
        mtu: u16,
    },
    /// A disk: `file` is a regular file or a block device, open for reading and, unless `read_only`, for writing. Its bytes are the
    /// disk's, from the first on; nobody looks at what they mean.
    Blk {
        file: Fd,
        /// Of 512 bytes each, at least 1. What the file has beyond is not part of the disk.
        sectors: u64,
        /// Bytes of what the disk reads and writes at once: a power of two from 512 to 4096.
        block_size: u32,
        /// What writes fails, whatever the guest's driver says.
        read_only: bool,
        /// What the guest reads as the disk's serial number: at most 20 bytes.
        serial: String,
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
    /// The guest asked for a reset (the reset control register, `reboot=p`): its kernel restarted, or its agent gave up.
    #[error("the guest reset itself")]
    Reset,
    /// A triple fault (KVM_EXIT_SHUTDOWN): its kernel crashed without a word. Says what the vCPU's registers held and
    /// what it did last.
    #[error("the guest crashed without a message (triple fault): {0}")]
    TripleFault(Detail),
    /// The guest kernel panicked: seen on the console before the reset.
    #[error("the guest kernel panicked")]
    Panic,
    /// KVM cannot go on (KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_FAIL_ENTRY, an unknown exit).
    #[error("KVM stopped the guest: {0}")]
    Kvm(Detail),
    /// `Request::Stop`.
    #[error("stopped by the host")]
    Stopped,
    /// The VMM made a system call that it never makes: a fault of ours, or somebody has taken it over. The kernel refused it.
    /// `call`: name and number. `address`: of the instruction.
    #[error(
        "the VMM made the system call {call} in its thread {thread}, which its seccomp filter forbids (at {address:#x})"
    )]
    Forbidden { thread: String, call: String, address: u64 },
    /// The VMM itself failed.
    #[error("the VMM failed: {0}")]
    Vmm(Detail),
}

/// One line about a machine's end, for people: at most `limits::DETAIL` bytes, no control characters, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Detail(String);

impl From<String> for Detail {
    /// What is too long is cut, what is no text for a line becomes `?`.
    fn from(mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(limits::DETAIL));
        if text.contains(char::is_control) {
            text = text.replace(char::is_control, "?");
        }
        Self(text)
    }
}

impl From<Detail> for String {
    fn from(Detail(text): Detail) -> Self {
        text
    }
}

impl AsRef<str> for Detail {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
