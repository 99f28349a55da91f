//! The lab from inside: process 1 sets the machine up and reaps; `serve` runs what clients ask for.
//!
//! What a fresh server would have is there: cgroup2 with all controllers, shared mount propagation, tmpfs where
//! programs expect one, sane limits, modules that load themselves. Any failure powers the machine off, so the host
//! sees it at once, with the reason as the console's last line.

pub(crate) mod links;
mod serve;
pub mod shake;

use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use super::Error;
use super::machine::READY_PORT;

const CONFIG: &str = "/lab/guest.json";
/// Where the build machine's root is mounted as it is, without the overlay.
const HOST: &str = "/lab/host";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The host's end of QEMU's user network, and ours.
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const OWN_ADDRESS: [u8; 4] = [10, 0, 2, 15];
/// Wanted from the start; all others load on demand.
const MODULES: [&str; 6] = ["kvm-amd", "virtio_net", "virtio_rng", "tun", "vhost_net", "vhost_vsock"];

/// What the host tells the guest's init.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// The kernel's `lib/modules`, as a path on the host.
    pub modules: PathBuf,
    /// Host directories to show without the overlay, read-only and always current.
    pub live: Vec<PathBuf>,
}

/// Process 1 of the lab. Never returns: ends in a power-off.
pub fn init() -> ! {
    let ended = set_up().and_then(|()| serve_and_reap());
    let Err(error) = ended;
    let mut chain = format!("lab: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        chain.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("{chain}");
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        // Process 1 that exits is a panic, and a panic ends the lab as well.
        Err(_) => std::process::exit(1),
    }
}

fn set_up() -> Result<(), Error> {
    let config = fs::read(CONFIG).map_err(Error::file("read", CONFIG))?;
    let config: GuestConfig =
        serde_json::from_slice(&config).map_err(Error::system("parse the configuration"))?;
    mount_kernel_file_systems()?;
    for live in &config.live {
        let from = Path::new(HOST).join(live.strip_prefix("/").unwrap_or(live));
        bind(&from, live)?;
    }
    bind(
        &Path::new(HOST).join(config.modules.strip_prefix("/").unwrap_or(&config.modules)),
        "/lib/modules".as_ref(),
    )?;
    fs_mount("out", "/lab/out", "virtiofs", MsFlags::empty(), "")?;
    enable_cgroup_controllers()?;
    limits()?;
    name_machine()?;
    // Without a module the lab is a lesser one, and its user will see what is missing: not fatal.
    for module in MODULES {
        drop(Command::new("modprobe").arg(module).env("PATH", PATH).stdin(Stdio::null()).status());
    }
    // podman's clean-up after a container fails without anybody at /dev/log.
    drop(
        Command::new("busybox")
            .args(["syslogd", "-O", "/run/syslog"])
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .status(),
    );
    links::up("lo").map_err(Error::system("bring lo up"))?;
    links::address("eth0", OWN_ADDRESS, 24).map_err(Error::system("give eth0 its address"))?;
    links::up("eth0").map_err(Error::system("bring eth0 up"))
}

fn mount_kernel_file_systems() -> Result<(), Error> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    fs_mount("run", "/run", "tmpfs", plain, "mode=755,size=50%")?;
    fs_mount("tmp", "/tmp", "tmpfs", plain, "mode=1777,size=50%")?;
    fs_mount("shm", "/dev/shm", "tmpfs", plain, "mode=1777,size=50%")?;
    fs_mount(
        "devpts",
        "/dev/pts",
        "devpts",
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        "mode=620,ptmxmode=666",
    )?;
    fs_mount("mqueue", "/dev/mqueue", "mqueue", plain, "")?;
    fs_mount("debugfs", "/sys/kernel/debug", "debugfs", plain, "")?;
    fs_mount("tracefs", "/sys/kernel/tracing", "tracefs", plain, "")?;
    let cgroup = "nsdelegate,memory_recursiveprot";
    fs_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", plain | MsFlags::MS_NOEXEC, cgroup)?;
    fs::create_dir_all("/run/lock").map_err(Error::file("create", "/run/lock"))?;
    // As systemd does on a real server; callers' mounts must propagate the same way here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .map_err(Error::system("make all mounts shared"))
}

fn fs_mount(source: &str, target: &str, kind: &str, flags: MsFlags, options: &str) -> Result<(), Error> {
    fs::create_dir_all(target).map_err(Error::file("create", target))?;
    mount(Some(source), target, Some(kind), flags, Some(options)).map_err(|errno| Error::File {
        step: "mount",
        path: target.into(),
        source: errno.into(),
    })
}

fn bind(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::file("create", to))?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| Error::File {
        step: "bind",
        path: from.to_owned(),
        source: errno.into(),
    })
}

fn enable_cgroup_controllers() -> Result<(), Error> {
    let list = "/sys/fs/cgroup/cgroup.controllers";
    let control = "/sys/fs/cgroup/cgroup.subtree_control";
    let controllers = fs::read_to_string(list).map_err(Error::file("read", list))?;
    for controller in controllers.split_whitespace() {
        fs::write(control, format!("+{controller}")).map_err(Error::file("write", control))?;
    }
    Ok(())
}

/// What a Debian login gets; the kernel's own defaults (4096 files at most) are too tight for a container host.
fn limits() -> Result<(), Error> {
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1 << 20)
        .map_err(Error::system("set the limit on open files"))?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 64 << 20, 64 << 20)
        .map_err(Error::system("set the limit on locked memory"))
}

fn name_machine() -> Result<(), Error> {
    nix::unistd::sethostname("lab").map_err(Error::system("set the host name"))?;
    fs::write("/etc/hosts", "127.0.0.1 localhost lab\n::1 localhost\n")
        .map_err(Error::file("write", "/etc/hosts"))
}

/// Starts `serve` as a child and reaps everything until it ends, which it never should.
fn serve_and_reap() -> Result<Infallible, Error> {
    let program = "/lab/bin/bulkhead-lab".to_owned();
    let serve = Command::new(&program)
        .arg("guest-serve")
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|source| Error::Spawn { program, source })?;
    let serve = nix::unistd::Pid::from_raw(serve.id().cast_signed());
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid == serve => {
                return Err(Error::Died { console: "serve ended".to_owned() });
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("wait for children")(errno)),
        }
    }
}

/// The lab's server process: listens, tells the host, serves until the machine goes.
///
/// # Errors
/// The port cannot be listened on or the host not told.
pub fn serve() -> Result<Infallible, Error> {
    let listener = serve::listen().map_err(Error::system("listen for clients"))?;
    let mut greeting =
        TcpStream::connect((HOST_ADDRESS, READY_PORT)).map_err(Error::system("greet the host"))?;
    greeting.write_all(b"ready").map_err(Error::system("greet the host"))?;
    let error: io::Error = serve::accept_all(&listener);
    Err(Error::system("accept clients")(error))
}
