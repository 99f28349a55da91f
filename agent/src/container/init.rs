//! `container-init`: a fresh process of one thread that walks a plan.
//!
//!   launcher ─ sources, staging ─ fork ─ id maps ─ exit
//!                                  └▶ process ─ step after step ─ parked ─ Go ─▶ exec
//!
//! The socket to the agent is descriptor 0 at first. Any failure is reported there with its step and ends the
//! process; when the agent's end goes away, so does the process. It is not dumpable, so that a container which
//! sees it in its pid namespace cannot reach through its /proc entry what is still open.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

use bulkhead_protocol::{
    container::{Capabilities, Mount, Seccomp},
    packet::PacketSocket,
};
use bulkhead_sys::{loopback, mount::Attributes};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    process::{DumpableBehavior, set_dumpable_behavior, setsid},
};

use super::{
    confinement::{self, Filter},
    console, copy_up, credentials,
    detached::{attach, filesystem},
    devices,
    error::{ContainerError, During},
    masked,
    message::{Go, Order, Report, read_plan},
    mounts,
    namespaces::{self, Fork},
    path::Root,
    plan::{BelowBind, LaunchKind, Plan, Step},
    program::{self, Entered, Program},
    rootfs::{self, Sources},
    scheduling, staging, start_hooks, sysctl,
};

/// The program `bulkhead-agent container-init`.
pub fn main() -> ExitCode {
    // Beyond the three places that stdio takes later.
    let socket = match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 10) {
        Ok(fd) => PacketSocket::from(fd),
        Err(errno) => {
            crate::say!("container-init: {errno}: it is started by the agent only");
            return ExitCode::FAILURE;
        }
    };
    match launch(&socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the agent there is nobody to tell.
            let _ = socket.send(&Report::Failed(error), &[]);
            ExitCode::FAILURE
        }
    }
}

fn launch(socket: &PacketSocket) -> Result<(), ContainerError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("protect", "container-init")?;
    // It may have been started ahead, and have time.
    crate::warm::map_own_code();
    let (order, fds) = socket.receive::<Order>().during("read", "order")?;
    let mut fds = fds.into_iter();
    let mut next = |what: &'static str| fds.next().ok_or("the descriptor is missing").during("read", what);
    let plan = read_plan(next("plan")?)?;
    let stdio = [next("stdin")?, next("stdout")?, next("stderr")?];
    let cgroup = next("cgroup")?;
    let target = if order.join { Some(next("target")?) } else { None };
    fs::write("/proc/self/oom_score_adj", plan.launch.oom_score_adj.to_string())
        .during("set oom_score_adj to", plan.launch.oom_score_adj)?;

    if let Some(cpus) = plan.launch.initial_cpus {
        scheduling::set_own_cpus(cpus)?;
    }
    if let Some(uid) = plan.launch.stream_owner {
        console::own_streams(&stdio, uid)?;
    }
    let mut sources = None;
    // The cgroup namespace takes the cgroup we are in for its root, the user namespace takes our privileges: both
    // come after the fork.
    let joins_all = matches!(plan.launch.kind, LaunchKind::Join);
    let late = namespaces::CGROUP | if joins_all { namespaces::USER } else { 0 };
    let mut new = plan.launch.namespaces & !late;
    match (&plan.launch.kind, &target) {
        (LaunchKind::Create { outside, time_offsets, guest_sysctl, joined, .. }, target)
            if target.is_some() == (*joined != 0) =>
        {
            sources = Some(rootfs::stage(outside)?);
            for (file, value) in guest_sysctl {
                write_sysctl(file, value)?;
            }
            if new & namespaces::TIME != 0 {
                namespaces::new_time(time_offsets)?;
                new &= !namespaces::TIME;
            }
            if let Some(target) = target {
                namespaces::join(target.as_fd(), *joined)?;
            }
        }
        (LaunchKind::Join, Some(target)) if new & namespaces::MOUNT != 0 => {
            namespaces::join(target.as_fd(), new)?;
            new = 0;
        }
        (LaunchKind::Create { .. } | LaunchKind::Join, _) => {
            return Err("it does not fit the plan").during("read", "order");
        }
    }
    let (wait, ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).during("make", "pipe")?;
    match namespaces::fork_sibling(new, cgroup.as_fd())? {
        Fork::Launcher { pid, pidfd } => {
            if let LaunchKind::Create { uid_mappings, gid_mappings, .. } = &plan.launch.kind
                && new & namespaces::USER != 0
            {
                namespaces::map_ids(pid, pidfd.as_fd(), uid_mappings, gid_mappings)?;
            }
            socket.send(&Report::Forked { pid }, &[pidfd.as_fd()]).during("report", "fork")?;
            // On an error before this the pipe closes unwritten, and the process ends.
            rustix::io::write(&ready, &[1]).during("release", "process").map(drop)
        }
        Fork::Process => {
            drop(ready);
            // It leads to the guest's own cgroup tree, which nobody in the container's namespaces shall reach.
            drop(cgroup);
            if !matches!(rustix::io::read(&wait, &mut [0; 1]), Ok(1)) {
                std::process::exit(1);
            }
            drop(wait);
            if let Some(target) = target
                && joins_all
            {
                namespaces::join(target.as_fd(), plan.launch.namespaces & late)?;
            }
            Process::new(socket, sources, stdio, &plan)?.run(&plan)
        }
    }
}

/// The state that steps hand to later steps.
#[derive(Debug)]
struct Process<'a> {
    socket: &'a PacketSocket,
    sources: Option<Sources>,
    stdio: [OwnedFd; 3],
    root: Root,
    entered: Entered,
    reduced: Option<credentials::Reduced>,
    env: Vec<String>,
    args: &'a [String],
    program: Option<Program>,
}

impl<'a> Process<'a> {
    fn new(
        socket: &'a PacketSocket,
        sources: Option<Sources>,
        stdio: [OwnedFd; 3],
        plan: &'a Plan,
    ) -> Result<Self, ContainerError> {
        Ok(Self {
            socket,
            sources,
            stdio,
            root: open_root()?,
            entered: Entered::Yes,
            reduced: None,
            env: plan.env.clone(),
            args: &plan.args,
            program: None,
        })
    }

    /// Returns only with an error.
    fn run(mut self, plan: &Plan) -> Result<(), ContainerError> {
        rustix::process::umask(Mode::empty());
        for step in &plan.steps {
            self.take(step)?;
        }
        // What is left of the set-up lets go of the guest before the wait, not with the exec.
        self.sources = None;
        self.root.let_go();
        end_on_signals();
        self.socket.send(&Report::Parked, &[]).during("report", "readiness")?;
        // The agent that goes away instead takes the container with it.
        self.socket.receive::<Go>().during("wait for", "release")?;
        if let Some(hooks) = &plan.start_hooks {
            start_hooks::run(hooks, self.filter_of(&plan.last_steps)?.as_ref())?;
        }
        for step in &plan.last_steps {
            self.take(step)?;
        }
        if plan.pauses {
            pause();
        }
        let program = self.program.take().ok_or("the plan has no program").during("exec", "program")?;
        Err(program.exec())
    }

    /// One arm for each step of the plan.
    fn take(&mut self, step: &Step) -> Result<(), ContainerError> {
        match step {
            Step::NewSession => setsid().during("make", "session").map(drop),
            Step::NewKeyring => credentials::new_keyring(),
            Step::BecomeRootInside => credentials::become_root_inside(),
            Step::CgroupNamespace => namespaces::unshare(namespaces::CGROUP, "cgroup"),
            Step::LoopbackUp => loopback::bring_up().during("bring up interface", "lo"),
            Step::Hostname(name) => {
                rustix::system::sethostname(name.as_bytes()).during("set host name", name)
            }
            Step::Domainname(name) => {
                rustix::system::setdomainname(name.as_bytes()).during("set domain name", name)
            }
            Step::Rootfs => self.attach_rootfs(),
            Step::BindMount { source, mount, submounts } => self.bind(*source, mount, submounts),
            Step::FilesystemMount(mount) => self.filesystem(mount),
            Step::MappedMount { source, mount } => self.mapped(*source, mount),
            Step::Remount(mount) => self.remount(mount),
            Step::CgroupMount { own_namespace, mount } => self.cgroup(*own_namespace, mount),
            Step::Device { node, guest } => {
                let guest = self.sources.as_mut().and_then(|sources| sources.devices.get_mut(guest)?.pop());
                devices::make(&self.root, node, guest)
            }
            Step::DeviceLink { target, path } => devices::link(&self.root, target, path),
            Step::WorkingDirectory(path) => rootfs::make_working_directory(&self.root, path),
            Step::Sysctl { file, value } => write_sysctl(file, value),
            Step::PivotRoot => rootfs::pivot(&self.root),
            Step::Terminal { size, plain_line_feeds, console } => {
                self.terminal(*size, *plain_line_feeds, *console)
            }
            Step::ReadOnlyMount(path) => {
                let place = self.root.place(path).during("make read-only", path)?;
                Attributes::read_only().apply(place).during("make read-only", path)
            }
            Step::SealRootfs { readonly, propagation } => rootfs::seal(&self.root, *readonly, *propagation),
            Step::ReadOnlyPath(path) => masked::make_read_only(&self.root, path),
            Step::MaskPath(path) => {
                let cover = self.sources.as_mut().and_then(|sources| sources.cover.as_mut());
                masked::mask(&self.root, path, cover)
            }
            Step::Stdio { uid } => {
                console::own_streams(&self.stdio, *uid)?;
                console::place_streams(&self.stdio)
            }
            Step::Environment { uid } => {
                self.env = program::environment(&self.env, *uid, &self.root);
                Ok(())
            }
            Step::EnterDirectory(path) => {
                self.entered = program::enter(path)?;
                Ok(())
            }
            Step::Bounds(wanted) => self.bounds(*wanted),
            Step::BecomeUser(user) => credentials::become_user(user),
            Step::EnterDirectoryAsUser(path) => self.enter_as_user(path),
            Step::Personality(personality) => confinement::set_personality(*personality),
            Step::MemoryPolicy(policy) => confinement::set_memory_policy(*policy),
            Step::Capabilities { for_filter } => credentials::take_capabilities(self.reduced()?, *for_filter),
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true).during("set", "no_new_privs"),
            Step::FindProgram => {
                self.program = Some(Program::find(self.args, &self.env)?);
                Ok(())
            }
            Step::ResetSignals => reset_signals(),
            Step::CloseDescriptors => close_descriptors(),
            Step::Filter { seccomp, privileged } => {
                self.filter(seccomp, *privileged)?.set().during("set", "seccomp filter")
            }
        }
    }

    fn reduced(&self) -> Result<&credentials::Reduced, ContainerError> {
        self.reduced.as_ref().ok_or("the bounding set comes first").during("set", "capabilities")
    }

    fn filter(&self, seccomp: &Seccomp, privileged: bool) -> Result<Filter, ContainerError> {
        let raised = if privileged { Some(credentials::raised_for_filter(self.reduced()?)) } else { None };
        Ok(Filter::new(seccomp, raised))
    }

    /// The filter that is still to be set.
    fn filter_of(&self, steps: &[Step]) -> Result<Option<Filter>, ContainerError> {
        let filter = steps.iter().find_map(|step| match step {
            Step::Filter { seccomp, privileged } => Some((seccomp, *privileged)),
            _ => None,
        });
        filter.map(|(seccomp, privileged)| self.filter(seccomp, privileged)).transpose()
    }

    fn attach_rootfs(&mut self) -> Result<(), ContainerError> {
        let mount = self.sources.as_mut().and_then(|sources| sources.rootfs.take());
        self.root = rootfs::attach_rootfs(mount.ok_or("it was not opened").during("mount", "rootfs")?)?;
        Ok(())
    }

    fn bind(&mut self, source: usize, mount: &Mount, submounts: &[BelowBind]) -> Result<(), ContainerError> {
        let path = mount.destination.as_str();
        let fd = self.bind_source(source, path)?;
        let file = !super::path::is_directory(&fd).during("bind mount on", path)?;
        let place = mounts::destination(&self.root, mount, file)?;
        mounts::outside_procfs(&place, path)?;
        mounts::set_attributes(&fd, mount, 0)?;
        attach(&fd, &place).during("bind mount on", path)?;
        for BelowBind { source, below } in submounts {
            mounts::attach_below(&fd, below, &self.bind_source(*source, path)?, mount)?;
        }
        self.root.hold(path, &place, fd).during("bind mount on", path)
    }

    fn bind_source(&mut self, source: usize, path: &str) -> Result<OwnedFd, ContainerError> {
        let taken = self.sources.as_mut().and_then(|sources| sources.binds.get_mut(source)?.take());
        taken.ok_or("its source was not opened").during("bind mount on", path)
    }

    fn filesystem(&mut self, mount: &Mount) -> Result<(), ContainerError> {
        let image = mounts::directory_of_image(&self.root, mount)?;
        let fd = mounts::of_spec(mount, image.as_ref().map(|(_, mode)| *mode))?;
        self.fill_and_attach(fd, mount, image)
    }

    /// The launcher has made it, before there was an image to look at.
    fn mapped(&mut self, source: usize, mount: &Mount) -> Result<(), ContainerError> {
        let path = mount.destination.as_str();
        let taken = self.sources.as_mut().and_then(|sources| sources.mapped.get_mut(source)?.take());
        let fd = taken.ok_or("it was not made").during("mount on", path)?;
        let image = mounts::directory_of_image(&self.root, mount)?;
        if let Some((_, mode)) = image.as_ref()
            && !mount.data.iter().any(|option| option.starts_with("mode="))
        {
            let mode = Mode::from_raw_mode(*mode);
            rustix::fs::chmodat(&fd, ".", mode, AtFlags::empty()).during("set mode of mount", path)?;
        }
        self.fill_and_attach(fd, mount, image)
    }

    fn fill_and_attach(
        &mut self,
        fd: OwnedFd,
        mount: &Mount,
        image: Option<(OwnedFd, u32)>,
    ) -> Result<(), ContainerError> {
        if let Some((directory, _)) = image
            && mount.copy_up
        {
            copy_up::copy(&directory, &fd).during("copy up", &mount.destination)?;
        }
        self.set_attributes_and_attach(fd, mount, mounts::late_attributes(mount))
    }

    fn remount(&self, mount: &Mount) -> Result<(), ContainerError> {
        let place = mounts::mounted_at(&self.root, &mount.destination)?;
        mounts::set_attributes(&place, mount, 0)
    }

    fn cgroup(&mut self, own_namespace: bool, mount: &Mount) -> Result<(), ContainerError> {
        let path = mount.destination.as_str();
        let fd = if own_namespace {
            let data: Vec<&str> = mount.data.iter().map(String::as_str).collect();
            filesystem("cgroup2", "cgroup", &[], &data).during("mount cgroup2 on", path)?
        } else {
            let own = self.sources.as_mut().and_then(|sources| sources.cgroup.take());
            own.ok_or("it was not opened, or is mounted already").during("bind cgroup on", path)?
        };
        let mut mount = mount.clone();
        if mount.super_flags.iter().any(|flag| flag == "ro") {
            // There is one cgroup2 superblock for the whole guest: only this mount of it may turn read-only.
            mount.set |= mounts::READ_ONLY;
        }
        self.set_attributes_and_attach(fd, &mount, 0)
    }

    fn set_attributes_and_attach(
        &mut self,
        fd: OwnedFd,
        mount: &Mount,
        late: u64,
    ) -> Result<(), ContainerError> {
        const STEP: &str = "mount on";
        let path = mount.destination.as_str();
        let place = mounts::destination(&self.root, mount, false)?;
        mounts::set_attributes(&fd, mount, late)?;
        attach(&fd, &place).during(STEP, path)?;
        self.root.hold(path, &place, fd).during(STEP, path)
    }

    fn terminal(
        &mut self,
        size: Option<(u16, u16)>,
        plain_line_feeds: bool,
        bind: bool,
    ) -> Result<(), ContainerError> {
        let terminal = console::open(&self.root, size)?;
        if plain_line_feeds {
            terminal.leave_line_feeds()?;
        }
        if bind {
            console::bind_console(&self.root, &terminal.slave)?;
        }
        self.socket.send(&Report::Master, &[terminal.master.as_fd()]).during("hand over", "terminal")?;
        self.stdio = console::three_of(&terminal.slave)?;
        Ok(())
    }

    fn bounds(&mut self, wanted: Capabilities) -> Result<(), ContainerError> {
        let (reduced, missing) = credentials::reduce_bounds(wanted)?;
        self.reduced = Some(reduced);
        if missing == 0 {
            return Ok(());
        }
        let warning = format!("capabilities {missing:#x} cannot be granted and are left out");
        self.socket.send(&Report::Warning(warning), &[]).during("report", "warning")
    }

    fn enter_as_user(&mut self, path: &str) -> Result<(), ContainerError> {
        if self.entered == Entered::AgainAsUser {
            rustix::process::chdir(path).during("enter working directory", path)?;
        }
        program::check_working_directory()
    }
}

fn write_sysctl(file: &str, value: &str) -> Result<(), ContainerError> {
    sysctl::write(&staging::open_sysctl()?, file, value)
}

fn open_root() -> Result<Root, ContainerError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Root::from(rustix::fs::openat(CWD, "/", flags, Mode::empty()).during("open", "/")?))
}

/// The program starts with default dispositions (the runtime of this program ignores SIGPIPE) and none blocked.
/// By the kernel's own calls: the C library keeps two signals to itself, which a parent may have set to be ignored.
fn reset_signals() -> Result<(), ContainerError> {
    const SET_BYTES: usize = 8;
    // The kernel's sigaction of x86_64: handler, flags, restorer, mask. All zero is SIG_DFL.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` has the layout and size that the kernel reads, and outlives the call. SIGKILL and
        // SIGSTOP are refused, which is as good: they cannot be ignored.
        unsafe {
            let nothing = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, SET_BYTES);
        }
    }
    let none = 0_u64;
    // SAFETY: `none` is a kernel signal set of the size given and outlives the call; no old set is asked for.
    let done = unsafe {
        let nothing = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, nothing, SET_BYTES)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).during("reset", "signals") }
}

/// While it is parked, the process is asked to end like any other. As PID 1 of its namespace the kernel would spare
/// it every signal that it does not handle; a program that is exec'd gets the defaults back.
fn end_on_signals() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit may be called from a signal handler.
        unsafe { libc::_exit(128 + signal) }
    }
    let handler = end as extern "C" fn(libc::c_int);
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: the handler calls only what is safe in a handler. The answer is an error for bad numbers alone.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Instead of a program: waits for a signal that ends it, and leaves no zombie of processes that have lost their parent.
fn pause() -> ! {
    let _ = rustix::thread::set_name(c"pause");
    // SAFETY: what is ignored runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // The agent sees that it runs now, as it sees an exec: its socket is closed.
    // SAFETY: nothing of this process uses or closes a descriptor any more, for it never leaves this function.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    loop {
        // SAFETY: it waits for a signal.
        unsafe { libc::pause() };
    }
}

/// Only 0, 1 and 2 live through the exec, whatever was inherited or forgotten.
fn close_descriptors() -> Result<(), ContainerError> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now, so no descriptor that somebody owns goes away.
    let done = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).during("close", "descriptors") }
}
