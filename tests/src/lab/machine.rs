//! The processes a lab is made of: QEMU and three virtiofsd, as children that cannot outlive the supervisor.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::Error;
use super::assets::Assets;
use super::places::StateDir;
use super::variant::Variant;

/// Port of the guest's `serve`, forwarded from the same port of the supervisor's own loopback.
pub const SERVE_PORT: u16 = 7001;
/// Port on the supervisor's loopback that the guest connects to once it serves.
pub const READY_PORT: u16 = 7002;

/// Size of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub memory_mib: u32,
    pub cpus: u32,
}

/// A running child, killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    fn spawn(name: &'static str, command: &mut Command) -> Result<Self, Error> {
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory.
        // The thread that spawns is the supervisor's main thread, so the signal means the supervisor's end.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
        let child = command.spawn().map_err(|source| Error::Spawn { program: name.to_owned(), source })?;
        let pidfd = rustix::process::Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()))
            .map_err(Error::system("watch a child"))?;
        Ok(Self { name, child, pidfd })
    }

    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may fail because it is dead or reaped already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Serves `shared` on `socket`.
///
/// # Errors
/// The socket cannot be made or virtiofsd not started.
pub fn spawn_virtiofsd(
    assets: &Assets,
    name: &'static str,
    socket: &Path,
    shared: &Path,
    read_only: bool,
    log: &File,
) -> Result<Process, Error> {
    // Listening before virtiofsd exists: QEMU can connect at once, nobody waits for a file to appear.
    let listener = UnixListener::bind(socket).map_err(Error::file("listen on", socket))?;
    let mut command = Command::new(&assets.virtiofsd);
    command.arg(format!("--fd={}", listener.as_raw_fd())).arg("--shared-dir").arg(shared).args([
        "--sandbox=none",
        "--cache=auto",
        // Handles instead of one open descriptor per inode the lab has seen: the limit may be low.
        "--inode-file-handles=prefer",
        "--log-level=warn",
    ]);
    if read_only {
        command.arg("--readonly");
    } else {
        command.arg("--xattr");
    }
    let log = || log.try_clone().map(Stdio::from).map_err(Error::system("share the log"));
    command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
    let inherited = listener.as_raw_fd();
    // SAFETY: only fcntl on a descriptor that `listener`, alive until after the spawn below, holds open.
    unsafe {
        command.pre_exec(move || {
            let fd = std::os::fd::BorrowedFd::borrow_raw(inherited);
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(io::Error::from)
        });
    }
    Process::spawn(name, &mut command)
}

/// Starts QEMU for the lab in `dir`; `sockets` are those of the shares, each with its tag.
///
/// # Errors
/// QEMU cannot be started.
pub fn spawn_qemu(
    assets: &Assets,
    dir: &StateDir,
    (size, variant): (Size, &Variant),
    sockets: &[(&str, PathBuf)],
    log: &File,
) -> Result<Process, Error> {
    let mut command = assets.qemu.command();
    let mib = size.memory_mib;
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    // vhost-user needs shared memory.
    command.args(["-machine", "q35,memory-backend=mem", "-accel", &variant.accelerator()]);
    command.arg("-object").arg(format!("memory-backend-memfd,id=mem,size={mib}M,share=on"));
    command.arg("-m").arg(format!("{mib}M")).arg("-smp").arg(size.cpus.to_string());
    // AMD, because QEMU emulates nested SVM in software and not nested VMX.
    command.args(["-cpu", variant.cpu_model.as_deref().unwrap_or("EPYC-v3,+svm,+npt")]);
    command.arg("-kernel").arg(&assets.kernel.image).arg("-initrd").arg(dir.initramfs());
    // panic=-1 with -no-reboot: a panic ends QEMU, and with it the lab, at once.
    let mut append = "console=ttyS0 quiet loglevel=4 mitigations=off panic=-1 random.trust_cpu=on".to_owned();
    append.extend(variant.append.iter().flat_map(|more| [" ", more.as_str()]));
    command.args(["-append", &append]);
    let mut console = OsString::from("file,id=console,path=");
    console.push(dir.console());
    command.arg("-chardev").arg(console).args(["-serial", "chardev:console"]);
    for (tag, socket) in sockets {
        let mut chardev = OsString::from(format!("socket,id={tag},path="));
        chardev.push(socket);
        command.arg("-chardev").arg(chardev);
        command.arg("-device").arg(format!("vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024"));
    }
    command.arg("-netdev").arg(format!("user,id=net,hostfwd=tcp:127.0.0.1:{SERVE_PORT}-:{SERVE_PORT}"));
    command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
    command.args(["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]);
    let log = || log.try_clone().map(Stdio::from).map_err(Error::system("share the log"));
    command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
    Process::spawn("qemu", &mut command)
}
