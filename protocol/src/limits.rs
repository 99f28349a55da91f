//! How much one side takes from the other. Each is far above honest use and far below what hurts.

use std::time::Duration;

/// Containers in one sandbox.
pub const CONTAINERS: usize = 256;
/// Processes made by `Exec` that one container may hold at once.
pub const EXECS: usize = 1024;
/// Mounts of one container: each takes a descriptor while it is made, and a process has 1024.
pub const MOUNTS: usize = 512;
/// Mounts of the host below the sources of a container's recursive binds.
pub const SUBMOUNTS: usize = 256;
/// Bytes of the JSON of a `ContainerSpec` or `ProcessSpec`.
pub const CONTAINER_SPEC: usize = 3 << 20;
/// Bytes of a `config.json` (a spec of 10 MB is read, then refused or split).
pub const CONFIG_JSON: u64 = 16 << 20;
/// Instructions of a seccomp filter (`BPF_MAXINSNS` of the kernel).
pub const FILTER: usize = 4096;
/// Bytes of one control packet to or from the VMM; the console's tail must fit.
pub const PACKET: usize = 64 << 10;
/// File descriptors in one control packet (SCM_MAX_FD is 253).
pub const PACKET_FDS: usize = 64;
/// Bytes of one greeting or stdio header line, newline included.
pub const LINE: usize = 512;
/// A clock that is wrong by this much is stepped, by less it is slewed: programs stand a step worse than being a little off.
pub const CLOCK_STEP: Duration = Duration::from_millis(100);
/// Bytes of the console's tail kept and reported.
pub const CONSOLE_TAIL: usize = 16 << 10;
/// Bytes of the detail in a `GuestExit`.
pub const DETAIL: usize = 1024;
/// virtio-mmio slots of a machine: one for each pin of the guest's IOAPIC that no legacy device has (`vmm::devices::mmio`);
/// what sits where is in `slots`.
pub const SLOTS: usize = 18;
/// vCPUs of a machine.
pub const VCPUS: u8 = 32;
/// Guest memory: the least that boots, and the most that a guest's tables are made for.
pub const MEMORY_MIB: std::ops::RangeInclusive<u32> = 48..=65_536;

/// Inodes and open files of a guest, for each MiB of memory that its machine boots with. In an honest guest each costs a KiB
/// of its own memory.
pub const FILES_PER_MIB: u64 = 512;
/// The same for a machine of any size: Linux's default for `fs.nr_open`.
pub const FILES: u64 = 1 << 20;

/// How many inodes and open files the file server keeps for a guest that boots with `memory_mib`.
pub const fn files(memory_mib: u32) -> u64 {
    let files = memory_mib as u64 * FILES_PER_MIB;
    if files < FILES { files } else { FILES }
}

/// From VMM spawn to the agent's greeting. Generous: software emulation of nested virtualization is 100x slower.
pub const BOOT: Duration = Duration::from_secs(60);
/// For one RPC that does bounded work in the guest.
pub const RPC: Duration = Duration::from_secs(60);
/// From SIGKILL to the process's exit, after which the VM is ended. Half of it may pass while a terminal's last output is not
/// taken.
pub const KILL: Duration = Duration::from_secs(20);
/// For the guest to delete a container: to kill what is left of it, and to remove its cgroup.
pub const DELETE: Duration = Duration::from_secs(30);
/// For a container to stop when it is paused, or to go on again.
pub const FREEZE: Duration = Duration::from_secs(20);
/// How long one `WaitOom` waits; who still wants to know asks again.
pub const OOM_POLL: Duration = Duration::from_secs(30);
/// How long one `WaitPressure` waits.
pub const PRESSURE_POLL: Duration = Duration::from_secs(30);
/// Files and directories of volumes whose watchers hear of changes made on the host, in one sandbox.
pub const WATCHES: usize = 1024;
/// Bytes of their paths together.
pub const WATCH_BYTES: usize = 256 << 10;
/// Events of one `TellWatchers`.
pub const WATCH_EVENTS: usize = 512;
/// How long one `WaitWatches` waits; who still wants to know asks again.
pub const WATCH_POLL: Duration = Duration::from_secs(30);
/// Connections to the guest's loopback that one sandbox carries at once beside its network; and as many to unix sockets of the
/// host.
pub const RELAYS: usize = 128;
/// From the client's connection to the program's: the guest's loopback needs no time, but the guest may be busy.
pub const RELAY_CONNECT: Duration = Duration::from_secs(20);
/// For all startContainer hooks of one container together; shorter than `RPC`, so that the user reads which one it was.
pub const START_HOOKS: Duration = Duration::from_secs(40);
/// For one control request to the VMM.
pub const CONTROL: Duration = Duration::from_secs(20);
/// For a guest whose containers have ended to write to its disks what it has not written yet.
pub const DISKS_GONE: Duration = Duration::from_secs(60);
/// For a VMM that was told to stop, or a process that was killed, to be gone.
pub const SHUTDOWN: Duration = Duration::from_secs(5);
