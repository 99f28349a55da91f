//! The host's half: starts `bulkhead-vmm`, speaks its protocol, and listens to the guest's console.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Seek, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bulkhead_protocol::{
    limits,
    packet::{PacketError, PacketSocket},
    timeline::{Phase, Stamp},
    vmm::{
        CONTROL_FD, Device, Event, Failure, Fd, GuestExit, HugePages, MachineConfig, Message, Reply, Request,
        Slot,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::{Timeout, set_socket_timeout},
    process::{Pid, PidfdFlags, pidfd_open},
};

const VMM: &str = env!("CARGO_BIN_EXE_bulkhead-vmm");
/// For anything that the VMM or the guest is waited for; software emulation is slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The number of a spec's first own descriptor in the packet.
pub(crate) const FIRST_FD: u8 = 5;
/// The console's slot in all tests.
pub(crate) const CONSOLE: Slot = Slot(0);

/// Why no test can run here.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    if kernel_path().is_none() {
        return Some("there is no guest kernel: set BULKHEAD_KERNEL".into());
    }
    let probe = Command::new(VMM).arg("--probe-kvm").output().unwrap();
    (!probe.status.success()).then(|| String::from_utf8_lossy(&probe.stdout).trim().to_owned())
}

fn kernel_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BULKHEAD_KERNEL") {
        return Some(path.into());
    }
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/bulkhead/kernel");
    let kernels = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path().join("vmlinux"));
    kernels
        .filter(|path| path.exists())
        .max_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())
}

/// What to boot; `spec` gives the usual.
pub(crate) struct Spec {
    pub(crate) memory_mib: u32,
    pub(crate) max_memory_mib: u32,
    pub(crate) vcpus: u8,
    pub(crate) max_vcpus: u8,
    pub(crate) kernel: File,
    pub(crate) initramfs: File,
    pub(crate) devices: Vec<(Slot, Device)>,
    /// Descriptors for `devices`, from `FIRST_FD` on.
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) share: tempfile::TempDir,
    pub(crate) debug: bool,
    pub(crate) huge_pages: HugePages,
    pub(crate) stable_tsc: bool,
}

pub(crate) fn spec(scenario: &str) -> Spec {
    Spec {
        memory_mib: 128,
        max_memory_mib: 0,
        vcpus: 1,
        max_vcpus: 1,
        kernel: File::open(kernel_path().unwrap()).unwrap(),
        initramfs: initramfs(scenario),
        devices: Vec::new(),
        fds: Vec::new(),
        share: tempfile::tempdir().unwrap(),
        debug: false,
        huge_pages: HugePages::Always,
        stable_tsc: true,
    }
}

/// A VMM process under test; killed when dropped.
pub(crate) struct Vmm {
    socket: PacketSocket,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stamps: Vec<Stamp>,
    console: BufReader<File>,
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
    }
}

/// Starts a VMM and boots it.
pub(crate) fn boot(spec: &Spec) -> Result<Vmm, Failure> {
    let (socket, theirs) = PacketSocket::pair().unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE)).unwrap();
    spawn(&theirs);
    drop(theirs);
    let Message::Event(Event::Started { pid }) = receive(&socket) else { panic!("no Started event") };
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let (console, log) = rustix::pipe::pipe().unwrap();
    let kvm = File::options().read(true).write(true).open("/dev/kvm").unwrap();
    let directory = File::open(spec.share.path()).unwrap();
    let mut devices = vec![(CONSOLE, Device::Console { log: Some(Fd(4)) })];
    devices.extend(spec.devices.iter().cloned());
    let machine = MachineConfig {
        memory_mib: spec.memory_mib,
        max_memory_mib: spec.max_memory_mib.max(spec.memory_mib),
        files: limits::files(spec.memory_mib),
        vcpus: spec.vcpus,
        max_vcpus: spec.max_vcpus,
        kvm: Fd(0),
        kernel: Fd(1),
        initramfs: Fd(2),
        share: Fd(3),
        devices,
        debug_console: spec.debug,
        huge_pages: spec.huge_pages,
        stable_tsc: spec.stable_tsc,
    };
    let mut fds =
        vec![kvm.as_fd(), spec.kernel.as_fd(), spec.initramfs.as_fd(), directory.as_fd(), log.as_fd()];
    fds.extend(spec.fds.iter().map(AsFd::as_fd));
    let console = BufReader::new(File::from(console));
    let mut vmm = Vmm { socket, pid, pidfd, stamps: Vec::new(), console };
    let reply = vmm.ask(&Request::Boot(Box::new(machine)), &fds)?;
    assert_eq!(reply, Reply::Booted);
    Ok(vmm)
}

fn spawn(control: &PacketSocket) {
    let control = control.as_raw_fd();
    let mut command = Command::new(VMM);
    // SAFETY: dup2 and fcntl are safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let moved = if control == CONTROL_FD {
                libc::fcntl(control, libc::F_SETFD, 0)
            } else {
                libc::dup2(control, CONTROL_FD)
            };
            if moved < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    // The outer process ends as soon as it has said who the inner one is.
    let mut outer = command.spawn().unwrap();
    std::thread::spawn(move || outer.wait());
}

fn receive(socket: &PacketSocket) -> Message {
    socket.receive().unwrap().0
}

impl Vmm {
    /// Sends a request and waits for its reply; stamps that come before it are kept.
    pub(crate) fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, Failure> {
        self.socket.send(request, fds).unwrap();
        loop {
            match receive(&self.socket) {
                Message::Reply(reply) => return reply,
                Message::Event(Event::Stamp(stamp)) => self.stamps.push(stamp),
                Message::Event(other) => panic!("{other:?} instead of a reply"),
            }
        }
    }

    pub(crate) fn plug(&mut self, slot: Slot, device: Device) -> Result<Reply, Failure> {
        self.ask(&Request::Plug { slot, device }, &[])
    }

    /// One counter of the machine.
    pub(crate) fn metrics(&mut self) -> Vec<(String, u64)> {
        match self.ask(&Request::Metrics, &[]) {
            Ok(Reply::Metrics(metrics)) => metrics,
            other => panic!("{other:?} instead of metrics"),
        }
    }

    /// Bytes of memory that the VMM holds for itself, guest memory among them.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Reads the console up to the line that the guest says with this beginning; returns the rest of the line.
    pub(crate) fn hear(&mut self, beginning: &str) -> String {
        let mut heard = String::new();
        loop {
            if self.console.buffer().is_empty() {
                let mut console = [PollFd::new(self.console.get_ref(), PollFlags::IN)];
                let ready = poll(&mut console, Some(&Timespec::try_from(DEADLINE).unwrap())).unwrap();
                assert_eq!(ready, 1, "the guest did not say {beginning:?}; it said:\n{heard}");
            }
            let mut line = String::new();
            let len = self.console.read_line(&mut line).unwrap();
            assert_ne!(len, 0, "the console closed before {beginning:?}; the guest said:\n{heard}");
            heard.push_str(&line);
            if let Some(rest) =
                line.trim_end().strip_prefix("GUEST ").and_then(|said| said.strip_prefix(beginning))
            {
                return rest.trim().to_owned();
            }
        }
    }

    /// Waits for the end of the VM and of its process.
    pub(crate) fn exit(&mut self) -> (GuestExit, String) {
        let exit = loop {
            match receive(&self.socket) {
                Message::Event(Event::Exited { reason, console_tail }) => break (reason, console_tail),
                Message::Event(Event::Stamp(_)) => {}
                other => panic!("{other:?} instead of an exit"),
            }
        };
        assert!(matches!(self.socket.receive::<Message>(), Err(PacketError::Closed)));
        self.assert_gone();
        exit
    }

    /// Closes the control socket, as a server that dies does.
    pub(crate) fn hang_up(&mut self) {
        let (other, _) = PacketSocket::pair().unwrap();
        drop(std::mem::replace(&mut self.socket, other));
    }

    pub(crate) fn assert_gone(&self) {
        let mut process = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ended = poll(&mut process, Some(&Timespec::try_from(DEADLINE).unwrap())).unwrap();
        assert_eq!(ended, 1, "the VMM process is still there");
    }

    pub(crate) fn since(&self, from: Phase, to: Phase) -> Duration {
        let at = |phase| self.stamps.iter().find(|stamp| stamp.phase == phase).unwrap().monotonic_ns;
        Duration::from_nanos(at(to) - at(from))
    }
}

/// This program as /init, with what it links to, and its scenario.
fn initramfs(scenario: &str) -> File {
    let mut cpio = Cpio(tempfile::tempfile().unwrap());
    for directory in ["dev", "proc", "sys", "lib64", "lib", "lib/x86_64-linux-gnu"] {
        cpio.entry(directory, 0o040_755, b"");
    }
    cpio.entry("init", 0o100_755, &fs::read("/proc/self/exe").unwrap());
    cpio.entry("scenario", 0o100_644, scenario.as_bytes());
    for library in libraries() {
        cpio.entry(
            library.to_str().unwrap().trim_start_matches('/'),
            0o100_755,
            &fs::read(&library).unwrap(),
        );
    }
    cpio.entry("TRAILER!!!", 0, b"");
    let mut file = cpio.0;
    file.rewind().unwrap();
    file
}

/// What the loader has mapped for this process, at the paths where a guest's loader looks.
fn libraries() -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut libraries: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| Some(Path::new(&line[line.find('/')?..])))
        .filter_map(|path| Some(Path::new("/lib/x86_64-linux-gnu").join(path.file_name()?)))
        .filter(|path| path.to_string_lossy().contains(".so") && path.exists())
        .collect();
    libraries.sort();
    libraries.dedup();
    libraries.push("/lib64/ld-linux-x86-64.so.2".into());
    libraries
}

/// The "newc" format: a header of hexadecimal fields, the name, the contents, each padded to four bytes.
struct Cpio(File);

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        let mut bytes = b"070701".to_vec();
        let name_len = name.len() + 1;
        for field in [0, mode, 0, 0, 1, 0, contents.len() as u32, 0, 0, 0, 0, name_len as u32, 0] {
            bytes.extend(format!("{field:08x}").as_bytes());
        }
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(contents);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.0.write_all(&bytes).unwrap();
    }
}

/// An ELF with one segment and a PVH note that names its start as the entry.
pub(crate) fn elf(start: u64, image: &[u8]) -> File {
    let headers = 64 + 2 * 56;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    elf.extend([start, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 2, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    for (kind, offset, address, size) in
        [(1_u32, headers + 20, start, image.len() as u64), (4, headers, 0, 20)]
    {
        elf.extend([kind, 7].iter().flat_map(|word| word.to_le_bytes()));
        elf.extend([offset, address, address, size, size, 4].iter().flat_map(|word| word.to_le_bytes()));
    }
    elf.extend([4_u32, 4, 18].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(b"Xen\0");
    elf.extend((start as u32).to_le_bytes());
    elf.extend(image);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&elf).unwrap();
    file.rewind().unwrap();
    file
}
