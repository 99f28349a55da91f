//! A container without a VM: a rootfs made of busybox, `container-init` on this machine as root.
//!
//! Tests need root and the program busybox; where either is missing a test says so and counts as passed with
//! nothing checked. Everything lives in namespaces and directories of its own; the share is a temporary
//! directory. Without a cgroup2 hierarchy that can be written the whole cannot run.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bulkhead_agent::{
    container::{ChildStdio, ContainerError, Created, Launcher, Layout, Running, Volumes, create, exec},
    host_sockets::HostSockets,
};
use bulkhead_protocol::{
    container::{
        Capabilities, Confinement, ContainerSpec, IdMapping, Mount, MountSource, Namespace, NamespaceKind,
        NamespacePlace, Place, ProcessSpec, Resources, Rootfs, Scheduling, SharePath, TimeOffsets, User,
        Volume, VolumeKind,
    },
    id::ContainerId,
};
use rustix::process::{Pid, WaitOptions, waitpid};
use tempfile::TempDir;

pub const BUSYBOX: &str = "/bin/busybox";
const DEADLINE: Duration = Duration::from_secs(20);

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// What a finished process left.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug)]
pub struct Host {
    pub layout: Layout,
    pub id: ContainerId,
    share: TempDir,
}

/// Root, busybox and cgroup2, or a word on what is missing.
pub fn host() -> Option<Host> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let missing = if !rustix::process::geteuid().is_root() {
        Some("root")
    } else if !Path::new(BUSYBOX).exists() {
        Some(BUSYBOX)
    } else {
        None
    };
    let cgroups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|path| Path::new(path).join("cgroup.controllers").exists());
    let (None, Some(cgroups)) = (missing, cgroups) else {
        eprintln!("SKIPPED: needs {}", missing.unwrap_or("cgroup2"));
        return None;
    };
    own_mounts();
    let share = TempDir::new().unwrap();
    let rootfs = share.path().join("c/rootfs");
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "ls", "id", "stat", "sleep", "echo", "mount", "hostname", "env", "touch", "tty", "grep",
        "stty", "test", "pwd", "readlink", "head",
    ] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
        .unwrap();
    let layout = Layout {
        launcher: Launcher::new(env!("CARGO_BIN_EXE_bulkhead-agent")),
        share: share.path().into(),
        volumes: Volumes::below(&share.path().join("volumes"), HostSockets::default()),
        cgroups: cgroups.into(),
    };
    let id = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Some(Host { layout, id: id.parse().unwrap(), share })
}

/// Volumes are mounted in the namespace of the agent, which is this thread: the machine's stays as it is.
fn own_mounts() {
    use rustix::{
        mount::{MountPropagationFlags, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    // SAFETY: only the mount namespace, root and working directory of this thread stop being shared, which no test relies on.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

impl Host {
    pub fn share(&self) -> &Path {
        self.share.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.share.path().join("c/rootfs")
    }

    pub async fn create(&self, spec: &ContainerSpec) -> Result<(Created, Streams), ContainerError> {
        let (child, streams) = streams(spec.process.terminal);
        let created = create(&self.layout, &self.id, spec, child, None).await?;
        Ok((created, streams))
    }

    /// Makes, starts and awaits a container.
    pub async fn run(&self, spec: &ContainerSpec) -> Result<Outcome, ContainerError> {
        let (created, streams) = self.create(spec).await?;
        let Created { pid, pidfd: _pidfd, cgroup, gate, .. } = created;
        let released = gate.release().await;
        let (stdout, stderr) = streams.read();
        let end = wait(pid);
        cgroup.kill_all().unwrap();
        remove(&cgroup);
        released?;
        Ok(Outcome { end, stdout, stderr })
    }

    /// Runs `sh -c script` with the usual mounts, expects success, answers stdout.
    pub async fn shell(&self, change: impl FnOnce(&mut ContainerSpec), script: &str) -> String {
        let mut spec = spec(&["sh", "-c", script]);
        change(&mut spec);
        let outcome = self.run(&spec).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!(outcome.end, End::Code(0), "{outcome:?}");
        outcome.stdout
    }

    pub async fn exec(&self, container: &Running, process: &ProcessSpec) -> Result<Outcome, ContainerError> {
        let (child, streams) = streams(process.terminal);
        let spawned = exec(&self.layout, container, process, "", child).await;
        if spawned.is_err() {
            self.reap_failed(container.pid);
        }
        let spawned = spawned?;
        let (stdout, stderr) = streams.read();
        Ok(Outcome { end: wait(spawned.pid), stdout, stderr })
    }

    /// Releases the init; what `exec` takes.
    pub async fn start(&self, created: Created) -> Running {
        let Created { pid, pidfd, cgroup, gate, confinement, uid_mappings, .. } = created;
        gate.release().await.unwrap();
        Running { id: self.id.clone(), pid, pidfd, cgroup, confinement, uid_mappings }
    }

    /// A process that failed before its exec is a zombie until its parent reaps it, as PID 1 of a guest does;
    /// a pid namespace does not end while it has one.
    fn reap_failed(&self, init: u32) {
        for entry in fs::read_dir("/proc").unwrap() {
            let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse::<u32>() else { continue };
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let zombie = read("status").contains("State:\tZ");
            if zombie && pid != init && read("cgroup").contains(self.id.as_str()) {
                wait(pid);
            }
        }
    }

    /// Nothing of the container may be left.
    pub fn assert_clean(&self) {
        let cgroup = self.layout.cgroups.join("bulkhead").join(self.id.as_str());
        assert!(!cgroup.exists(), "{} is left", cgroup.display());
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let share = self.share.path().display().to_string();
        assert!(!mounts.contains(&share), "a mount is left: {mounts}");
    }
}

/// Our ends.
#[derive(Debug)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Streams {
    /// Both streams to their ends.
    pub fn read(self) -> (String, String) {
        drop(self.stdin);
        let read = |fd| {
            let mut text = String::new();
            fs::File::from(fd).read_to_string(&mut text).unwrap();
            text
        };
        let stderr = std::thread::spawn({
            let fd = self.stderr;
            move || read(fd)
        });
        (read(self.stdout), stderr.join().unwrap())
    }
}

fn streams(terminal: bool) -> (ChildStdio, Streams) {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr)) = (pipe(), pipe(), pipe());
    let child = if terminal {
        let null = || OwnedFd::from(fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap());
        ChildStdio { stdin: null(), stdout: null(), stderr: null(), terminal }
    } else {
        ChildStdio { stdin, stdout, stderr, terminal }
    };
    (child, Streams { stdin: Some(our_stdin), stdout: our_stdout, stderr: our_stderr })
}

pub fn wait(pid: u32) -> End {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Code(code),
        (None, signal) => End::Signal(signal.unwrap()),
    }
}

/// Removes a cgroup whose processes were killed, as soon as the last is gone.
pub fn remove(cgroup: &bulkhead_agent::container::Cgroup) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while let Err(error) = cgroup.remove() {
        assert!(std::time::Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
}

/// Waits until the process behind the pidfd is dead.
pub fn dead(pidfd: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let timeout = rustix::time::Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

/// All five sets alike.
pub fn capabilities(bits: u64) -> Capabilities {
    Capabilities { bounding: bits, effective: bits, inheritable: bits, permitted: bits, ambient: 0 }
}

pub fn process(args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: User { uid: 0, gid: 0, additional_gids: vec![], umask: None },
        terminal: false,
        console_size: None,
        plain_line_feeds: false,
        // What docker grants.
        capabilities: Some(capabilities(0xa804_25fb)),
        rlimits: vec![],
        inherited_rlimits: vec![],
        no_new_privileges: true,
        oom_score_adj: None,
        scheduling: Scheduling::default(),
    }
}

pub fn spec(args: &[&str]) -> ContainerSpec {
    let kinds = [
        NamespaceKind::Pid,
        NamespaceKind::Mount,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Network,
        NamespaceKind::Cgroup,
    ];
    ContainerSpec {
        pauses: false,
        rootfs: Rootfs { source: share_path("c/rootfs"), readonly: false, propagation: None },
        process: process(args),
        namespaces: kinds.map(|kind| Namespace { kind, place: NamespacePlace::New }).into(),
        uid_mappings: vec![],
        gid_mappings: vec![],
        time_offsets: TimeOffsets::default(),
        hostname: Some("web".into()),
        domainname: None,
        mounts: vec![
            filesystem("/proc", "proc", &[]),
            filesystem("/dev", "tmpfs", &["mode=755", "size=65536k"]),
            filesystem("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            filesystem("/dev/shm", "tmpfs", &["mode=1777", "size=65536k"]),
            filesystem("/dev/mqueue", "mqueue", &[]),
            filesystem("/sys", "sysfs", &[]),
        ],
        devices: vec![],
        masked_paths: vec![
            "/proc/kcore".into(),
            "/proc/acpi".into(),
            "/proc/absent".into(),
            "/sys/firmware".into(),
        ],
        readonly_paths: vec!["/proc/sys".into(), "/proc/bus".into()],
        sysctl: BTreeMap::new(),
        guest_sysctl: BTreeMap::new(),
        resources: Resources::default(),
        confinement: Confinement::default(),
        start_hooks: None,
        join: None,
    }
}

pub fn share_path(path: &str) -> SharePath {
    SharePath::try_from(path.to_owned()).unwrap()
}

pub fn mount(destination: &str, source: MountSource) -> Mount {
    Mount {
        destination: destination.into(),
        source,
        set: 0,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        super_flags: vec![],
        data: vec![],
        propagation: None,
        copy_up: false,
        id_map: None,
    }
}

/// What is at `path` in the share, without what is mounted below.
pub fn bind(destination: &str, path: &str) -> Mount {
    mount(destination, MountSource::Bind { place: place(path), submounts: vec![] })
}

/// A path in the volume that its first component is.
pub fn place(path: &str) -> Place {
    let (volume, path) = path.split_once('/').map_or((path, None), |(volume, path)| (volume, Some(path)));
    let volume = Volume { name: share_path(volume), kind: VolumeKind::Share };
    Place { volume, path: path.map(share_path), attributes: 0 }
}

/// One range of ids.
pub fn ids(container: u32, host: u32, size: u32) -> Vec<IdMapping> {
    vec![IdMapping { container, host, size }]
}

/// Adds a user namespace whose ids begin at 100000 outside.
pub fn user_namespace(spec: &mut ContainerSpec) {
    spec.namespaces.push(Namespace { kind: NamespaceKind::User, place: NamespacePlace::New });
    spec.uid_mappings = ids(0, 100_000, 65_536);
    spec.gid_mappings = ids(0, 100_000, 65_536);
}

pub fn filesystem(destination: &str, kind: &str, data: &[&str]) -> Mount {
    let source = MountSource::Filesystem { kind: kind.into(), source: kind.into() };
    Mount { data: data.iter().map(|&option| option.to_owned()).collect(), ..mount(destination, source) }
}
