//! The process that is a lab, seen from the host: it owns QEMU, the file servers, the mounts and the socket.
//!
//! It first leaves the host's mount and network namespaces, so its bind mounts and its loopback ports are invisible
//! outside and vanish with it. Then one loop on the main thread waits for clients, for a child's death and for
//! SIGTERM; each client gets two threads that copy bytes to and from the guest. Whatever ends the loop ends the lab.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::guest::GuestConfig;
use super::machine::{self, Process, READY_PORT, SERVE_PORT, Size};
use super::places::StateDir;
use super::variant::Variant;
use super::{Error, assets, initramfs, tail};

/// What a lab is started with.
#[derive(Debug, Clone)]
pub struct Config {
    pub dir: StateDir,
    pub size: Size,
    pub variant: Variant,
    /// Whether podman and docker are in it.
    pub engines: bool,
    /// Host directory behind `/lab/out`.
    pub out: PathBuf,
    /// From power-on to serving.
    pub boot_deadline: Duration,
}

/// Runs a lab until SIGTERM or its death. Prints `ready` on stdout when it serves.
///
/// # Errors
/// Whatever kept the lab from coming up, or [`Error::Died`] when it ended by itself.
pub fn supervise(config: &Config) -> Result<(), Error> {
    let dir = &config.dir;
    let _lock = take(dir)?;
    let signals = block_signals()?;
    let assets = assets::prepare(&config.variant, config.engines)?;
    let live = initramfs::live_directories();
    let guest = GuestConfig { modules: assets.kernel.modules.clone(), live };
    initramfs::build(&assets, &guest, &dir.initramfs())?;

    enter_own_namespaces()?;
    mount_root(&dir.root())?;
    let ready = TcpListener::bind((Ipv4Addr::LOCALHOST, READY_PORT))
        .map_err(Error::system("listen for the guest's greeting"))?;

    let log = File::create(dir.servers_log()).map_err(Error::file("create", dir.servers_log()))?;
    let sockets = ["root", "engines", "out"].map(|tag| (tag, dir.path().join(format!("{tag}.sock"))));
    for (_, socket) in &sockets {
        remove_if_there(socket)?;
    }
    remove_if_there(&dir.console())?;
    let children = [
        machine::spawn_virtiofsd(&assets, "virtiofsd of /", &sockets[0].1, &dir.root(), true, &log)?,
        machine::spawn_virtiofsd(
            &assets,
            "virtiofsd of the engines",
            &sockets[1].1,
            &assets.engines,
            true,
            &log,
        )?,
        machine::spawn_virtiofsd(&assets, "virtiofsd of /lab/out", &sockets[2].1, &config.out, false, &log)?,
        machine::spawn_qemu(&assets, dir, (config.size, &config.variant), &sockets, &log)?,
    ];

    // Kept open: the guest's end of this stream lives as long as its `serve`.
    let _greeting = match wait(ready.as_fd(), &children, &signals, Some(config.boot_deadline))? {
        Woken::Ready => ready.accept().map_err(Error::system("accept the guest's greeting"))?,
        Woken::Terminated => return Ok(()),
        Woken::Died(who) => return Err(boot_failure(dir, &format!("{who} ended"))),
        Woken::TimedOut => {
            return Err(boot_failure(dir, &format!("silent for {:?}", config.boot_deadline)));
        }
    };
    let listener = listen(&dir.socket())?;
    println!("ready");
    io::stdout().flush().map_err(Error::system("announce the lab"))?;

    loop {
        match wait(listener.as_fd(), &children, &signals, None)? {
            Woken::Ready => {
                let (client, _) = listener.accept().map_err(Error::system("accept a client"))?;
                thread::spawn(move || carry(&client));
            }
            Woken::Terminated => break,
            Woken::Died(_) | Woken::TimedOut => {
                remove_if_there(&dir.socket())?;
                return Err(Error::Died { console: tail(&dir.console(), 40) });
            }
        }
    }
    remove_if_there(&dir.socket())
}

/// Makes the state directory ours, or says who has it.
fn take(dir: &StateDir) -> Result<Flock<File>, Error> {
    fs::create_dir_all(dir.path()).map_err(Error::file("create", dir.path()))?;
    let file = File::create(dir.lock()).map_err(Error::file("create", dir.lock()))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => Error::AlreadyUp { name: dir.name() },
        other => Error::File { step: "lock", path: dir.lock(), source: other.into() },
    })?;
    fs::write(dir.pid(), std::process::id().to_string()).map_err(Error::file("write", dir.pid()))?;
    fs::create_dir_all(dir.root()).map_err(Error::file("create", dir.root()))?;
    Ok(lock)
}

fn block_signals() -> Result<SignalFd, Error> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().map_err(Error::system("block signals"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).map_err(Error::system("make a signal descriptor"))
}

fn enter_own_namespaces() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(Error::system("leave the host's mount and network namespaces"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(Error::system("make all mounts private"))?;
    super::guest::links::up("lo").map_err(Error::system("bring the loopback up"))
}

/// Binds `/` alone on `root` (so `/proc` and friends are empty directories there), then each other real file system.
fn mount_root(root: &Path) -> Result<(), Error> {
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| Error::File {
            step: "bind",
            path: from.to_owned(),
            source: errno.into(),
        })
    };
    let table = fs::read_to_string("/proc/self/mounts").map_err(Error::file("read", "/proc/self/mounts"))?;
    bind(Path::new("/"), root)?;
    for point in real_mounts(&table) {
        let to = root.join(point.strip_prefix("/").unwrap_or(&point));
        // Over-mounted or removed since: the lab can do without.
        if to.is_dir() {
            bind(&point, &to)?;
        }
    }
    Ok(())
}

/// Mount points, other than `/`, of file systems that hold a user's files (a home, a checkout, a target directory).
fn real_mounts(table: &str) -> Vec<PathBuf> {
    const REAL: [&str; 10] =
        ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "virtiofs", "tmpfs"];
    let system = ["/proc", "/sys", "/dev", "/run", "/lab"];
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            // Names with blanks are escaped in this table; no checkout is worth decoding them.
            let wanted = REAL.contains(&kind) && point != "/" && !point.contains('\\');
            let path = PathBuf::from(point);
            (wanted && !system.iter().any(|s| path.starts_with(s))).then_some(path)
        })
        .collect()
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn listen(socket: &Path) -> Result<UnixListener, Error> {
    remove_if_there(socket)?;
    UnixListener::bind(socket).map_err(Error::file("listen on", socket))
}

fn boot_failure(dir: &StateDir, what: &str) -> Error {
    let servers = tail(&dir.servers_log(), 12);
    let console = tail(&dir.console(), 30);
    Error::Boot { reason: format!("{what}\n--- servers\n{servers}\n--- console\n{console}") }
}

enum Woken {
    Ready,
    Died(&'static str),
    Terminated,
    TimedOut,
}

/// Waits for `wanted` to be readable, a child to end, a signal or the deadline.
fn wait(
    wanted: BorrowedFd<'_>,
    children: &[Process],
    signals: &SignalFd,
    within: Option<Duration>,
) -> Result<Woken, Error> {
    let deadline = within.map(|within| Instant::now() + within);
    loop {
        let fds = [wanted].into_iter().chain(children.iter().map(AsFd::as_fd)).chain([signals.as_fd()]);
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            PollTimeout::try_from(deadline.saturating_duration_since(Instant::now()))
                .unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(Error::system("wait for the lab")(errno)),
            Ok(0) => return Ok(Woken::TimedOut),
            Ok(_) => {}
        }
        let fired: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if fired.last() == Some(&true) {
            return Ok(Woken::Terminated);
        }
        if let Some(child) = children.iter().zip(&fired[1..]).find(|(_, fired)| **fired) {
            return Ok(Woken::Died(child.0.name()));
        }
        if fired.contains(&true) {
            return Ok(Woken::Ready);
        }
    }
}

/// Copies between one client and the guest's `serve` until either closes.
fn carry(client: &UnixStream) {
    let Ok(guest) = TcpStream::connect((Ipv4Addr::LOCALHOST, SERVE_PORT)) else { return };
    // A failure on either side shows to the client as a closed connection, which it reports.
    drop(guest.set_nodelay(true));
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(io::copy(&mut &*client, &mut &guest));
            drop(guest.shutdown(Shutdown::Write));
        });
        drop(io::copy(&mut &guest, &mut &*client));
        drop(client.shutdown(Shutdown::Write));
    });
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
