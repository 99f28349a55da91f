//! The first thing PID 1 does: the mounts and limits that everything else here stands on, and the way out.
//!
//! The initramfs holds `/init` (this program), `/dev/console` and empty directories. No step is optional: a guest
//! that cannot do one of them is of no use, and says so on the console before it resets.

use std::{fs, io, panic, process};

use rustix::{
    mount::{MountFlags, mount},
    process::{Resource, Rlimit, setrlimit},
    system::{RebootCommand, reboot},
};

use crate::say;

/// Where the virtio-fs share is mounted: the rootfs of containers, and what volumes are made of, are below it.
pub const SHARE: &str = "/run/share";
/// Where each volume is mounted while containers use it.
pub const VOLUMES: &str = "/run/volumes";
/// The share's tag, as the VMM announces it.
const SHARE_TAG: &str = "share";
pub const CGROUP: &str = "/sys/fs/cgroup";
/// Until a pod gives its own.
const HOSTNAME: &[u8] = b"bulkhead";
/// Descriptors: three streams for each process, pipes, pidfds. Containers inherit the hard limit.
const DESCRIPTORS: Rlimit = Rlimit { current: Some(65_536), maximum: Some(1_048_576) };
/// Of each user: the kernel would make it by the memory of the boot, to which more may come. `pids.max` bounds containers.
const PROCESSES: Rlimit = Rlimit { current: None, maximum: None };

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("make {path}")]
    Directory { path: &'static str, source: io::Error },
    #[error("mount {kind} on {path}")]
    Mount { kind: &'static str, path: &'static str, source: io::Error },
    #[error("enable the cgroup controllers {controllers:?}")]
    Controllers { controllers: String, source: io::Error },
    #[error("{step}")]
    Set { step: &'static str, source: io::Error },
}

struct Mount {
    kind: &'static str,
    source: &'static str,
    path: &'static str,
    flags: MountFlags,
    data: &'static str,
}

const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In order: a later one may lie on an earlier one.
const MOUNTS: [Mount; 8] = [
    // /proc/self/exe for container-init, /proc/PID for ListProcesses, sysctls.
    Mount { kind: "proc", source: "proc", path: "/proc", flags: NO_PROGRAMS, data: "" },
    // Slots, CPUs, network devices; the cgroup tree.
    Mount { kind: "sysfs", source: "sysfs", path: "/sys", flags: NO_PROGRAMS, data: "" },
    // Device nodes of what the VMM plugs, and /dev/null for stdio. Not mounted by the kernel for an initramfs.
    Mount { kind: "devtmpfs", source: "dev", path: "/dev", flags: MountFlags::NOSUID, data: "mode=0755" },
    // The agent's own terminals, should a container share the sandbox's mounts; containers have an instance each.
    Mount {
        kind: "devpts",
        source: "devpts",
        path: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "newinstance,ptmxmode=0666,mode=0620,gid=5",
    },
    // Mount points of the share, sockets and files of this boot.
    Mount {
        kind: "tmpfs",
        source: "run",
        path: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=0755",
    },
    // Programs that expect it; nothing of the agent's.
    Mount {
        kind: "tmpfs",
        source: "tmp",
        path: "/tmp",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=1777",
    },
    // One cgroup for each container.
    Mount { kind: "cgroup2", source: "cgroup2", path: CGROUP, flags: NO_PROGRAMS, data: "nsdelegate" },
    // Rootfs and volumes. Programs and set-uid bits are the containers' business; devices are never made there.
    Mount { kind: "virtiofs", source: SHARE_TAG, path: SHARE, flags: MountFlags::NODEV, data: "" },
];

/// All of it. Blocking, before the event loop starts.
pub fn set_up() -> Result<(), BootError> {
    for entry in &MOUNTS {
        let Mount { kind, source, path, flags, data } = *entry;
        // The kernel makes /sys/fs/cgroup itself, which this finds.
        fs::create_dir_all(path).map_err(|source| BootError::Directory { path, source })?;
        let data = std::ffi::CString::new(data).unwrap_or_default();
        mount(source, path, kind, flags, data.as_c_str()).map_err(|source| BootError::Mount {
            kind,
            path,
            source: source.into(),
        })?;
    }
    enable_controllers()?;
    let step = |step| move |source: rustix::io::Errno| BootError::Set { step, source: source.into() };
    setrlimit(Resource::Nofile, DESCRIPTORS).map_err(step("set the limit of open files"))?;
    setrlimit(Resource::Nproc, PROCESSES).map_err(step("set the limit of processes"))?;
    rustix::system::sethostname(HOSTNAME).map_err(step("set the host name"))
}

/// Containers can only limit what their parent passes on.
fn enable_controllers() -> Result<(), BootError> {
    let wrong = |controllers: &str| {
        let controllers = controllers.trim().to_owned();
        move |source| BootError::Controllers { controllers, source }
    };
    let there = fs::read_to_string(format!("{CGROUP}/cgroup.controllers")).map_err(wrong(""))?;
    let all = subtree_control(&there);
    fs::write(format!("{CGROUP}/cgroup.subtree_control"), &all).map_err(wrong(&there))
}

/// `cpu memory` as read becomes `+cpu +memory` as written.
fn subtree_control(controllers: &str) -> String {
    controllers.split_whitespace().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

/// A panic ends the VM like any other failure, with its words as the console's last.
pub fn reset_on_panic() {
    panic::set_hook(Box::new(|info| {
        say!("{info}");
        reset();
    }));
}

/// The end for an error that leaves nothing to serve.
pub fn die(error: &dyn std::error::Error) -> ! {
    say!("{}", bulkhead_sys::chain(error));
    reset()
}

/// Ends the VM: the kernel runs with reboot=p, and its reset stops the machine. Outside of a VM, the process.
pub fn reset() -> ! {
    if process::id() == 1 {
        // What the last lines say is worth the wait for the console to take them.
        let _ = rustix::termios::tcdrain(io::stderr());
        let _ = reboot(RebootCommand::Restart);
    }
    // The kernel panics when PID 1 exits, which ends the VM as well.
    process::exit(1)
}

#[cfg(test)]
mod tests;
