//! `bulkhead create`: everything up to the user's program, which waits for `start`. Shared with `run`.
//!
//!   check all ─▶ a sandbox of its own, or that of other containers: its server takes the id (`api::Creation`)
//!     ─▶ proxy: opens the streams, has the server make the container ─▶ hooks ─▶ pid file ─▶ commit
//!
//! The server owns what is made. Until the commit a failure, or the death of this command, has the server undo all of it.

mod join;

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bulkhead_protocol::{
    id::{ContainerId, SandboxId},
    limits,
    timeline::{Phase, Stamp},
};

use self::join::Joined;
use super::{CgroupManager, Context, caller, preserve};
use crate::{
    api::Creation,
    config::{Artefacts, Config},
    container::{ContainerPlan, CreationRequest},
    error::Error,
    log::note,
    network::{self, Moved, Namespace},
    proxy::{self, Report, Terminal, Work, send_fd},
    sandbox::{
        SandboxPlan,
        binfmt::{self, Foreign},
        cgroup::{self, CgroupError, Place},
        sizing::{self, Demand, Sizes},
    },
    spec::{self, Bundle, HostPart, NetDevice, NetworkPath, SpecError, Vm},
    store::{Process, Record, Scope, write_atomically},
    systemd,
    time::rfc3339,
};

/// For the container to be made: the boot, then the set-up in the guest.
const READY: Duration =
    Duration::from_secs(limits::BOOT.as_secs() + limits::RPC.as_secs() + limits::CONTROL.as_secs());

/// Create a container; its program waits for `start`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

/// The flags of `create` and `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Directory of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Unix socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process that stands for the container
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// File that gets the pid of the process that stands for the container
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Accepted; a microVM's root is its own
    #[arg(long)]
    no_pivot: bool,
    /// Accepted; a microVM's keyrings are its own
    #[arg(long)]
    no_new_keyring: bool,
    /// Number of further descriptors to pass: 0, since none can be passed into a microVM
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Run no program: the container holds its namespaces, for the shim
    #[arg(long, hide = true)]
    pause: bool,
    /// Directory with what a pod gives its containers, for the shim
    #[arg(long, hide = true, value_name = "DIR")]
    pod_files: Option<PathBuf>,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        Created::make(context, &self.flags, Mode::Detached)?;
        Ok(0)
    }
}

/// Who is there when the container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Detached,
    /// The command waits, and its terminal is the container's.
    Foreground,
}

/// A container that this command has made.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) id: ContainerId,
    pub(super) proxy: proxy::Child,
    pub(super) creation: Creation,
    pub(super) terminal: bool,
}

/// All that is known before anything is touched.
struct Checked {
    id: ContainerId,
    bundle: Bundle,
    terminal: Option<Terminal>,
    home: Home,
    cgroup: Option<Place>,
    network: Option<Namespace>,
}

/// Where the container lives.
enum Home {
    /// In a microVM of its own.
    Own { config: Box<Config>, sizes: Sizes, artefacts: Artefacts, foreign: Vec<Foreign> },
    /// In that of other containers.
    Joined(Joined),
}

impl Created {
    pub(super) fn make(context: &Context, flags: &Flags, mode: Mode) -> Result<Self, Error> {
        let entered = Stamp::now(Phase::Command);
        let id: ContainerId = flags.id.parse()?;
        let step = |error: Error| error.during(format!("create {id}"));
        let checked = check(context, flags, mode, &id).map_err(step)?;
        for warning in &checked.bundle.host.warnings {
            context.log.warn(warning);
        }
        for note in &checked.bundle.host.notes {
            context.log.info(note);
        }
        make(context, flags, mode, checked, entered).map_err(step)
    }
}

fn check(context: &Context, flags: &Flags, mode: Mode, id: &ContainerId) -> Result<Checked, Error> {
    preserve::refuse_for_container(flags.preserve_fds)?;
    if flags.no_pivot {
        context.log.debug("--no-pivot has no meaning in a microVM");
    }
    let config = context.config()?;
    let pod_files = flags.pod_files.as_deref();
    let mut bundle = spec::load(&flags.bundle, id, &config.policy, pod_files)?;
    bundle.guest.pauses = flags.pause;
    let terminal = terminal(bundle.host.terminal, mode, flags.console_socket.as_deref())?;
    caller::inherit_limits(&mut bundle.guest.process);
    bundle.guest.process.plain_line_feeds = terminal.as_ref().is_some_and(Terminal::adds_carriage_returns);
    let joined = join::resolve(&context.root, &mut bundle)?;
    let cgroup = place_for(context, &bundle, id)?;
    let HostPart { vm, limits, pod, warnings, .. } = &mut bundle.host;
    let home = match joined {
        Some(joined) => {
            if *vm != Vm::default() {
                warnings.push(format!("vm has no effect: the microVM belongs to container {}", joined.host));
            }
            warnings.extend(limits.lost_in(&joined.host));
            Home::Joined(joined)
        }
        None => {
            let mut config = sizing::artefacts(config, vm)?;
            let path = cgroup.as_ref().map(|place| place.path.as_path());
            // A container sees no CPUs that its cgroup will never run on.
            if let Some(cpus) = path.and_then(cgroup::limits::cpus_above) {
                config.vcpus = u8::try_from(cpus).unwrap_or(u8::MAX).clamp(1, config.vcpus);
            }
            warnings.extend(cgroup::limits::check(path, limits)?);
            let demand = Demand::of_new(&bundle.guest, pod, limits);
            let sizes = sizing::sizes(&config, vm, demand, warnings)?;
            let artefacts = config.open_artefacts()?;
            let (foreign, missing) = binfmt::find(&config.binfmt);
            warnings.extend(missing);
            Home::Own { config: Box::new(config), sizes, artefacts, foreign }
        }
    };
    let open = |given: &NetworkPath| {
        Namespace::open(&given.path).map_err(|error| Error::from(error).during(&given.field))
    };
    let network = bundle.host.network.as_ref().map(open).transpose()?;
    if let (Home::Joined(joined), Some(device)) = (&home, bundle.host.net_devices.first()) {
        let reason = format!("the network is that of container {}", joined.host);
        return Err(SpecError::Refused { field: device.field.clone(), reason }.into());
    }
    network::check_devices(&bundle.host.net_devices)?;
    Ok(Checked { id: id.clone(), bundle, terminal, home, cgroup, network })
}

/// A terminal needs somebody who holds it: a caller's socket, or the user in the foreground.
pub(super) fn terminal(wanted: bool, mode: Mode, socket: Option<&Path>) -> Result<Option<Terminal>, Error> {
    match (wanted, mode, socket) {
        (true, Mode::Detached, None) => {
            Err(usage("cannot allocate tty if bulkhead will detach without setting console socket"))
        }
        (false, _, Some(_)) | (_, Mode::Foreground, Some(_)) => {
            Err(usage("cannot use console socket if bulkhead will not detach or allocate tty"))
        }
        (true, Mode::Detached, Some(socket)) => Ok(Some(Terminal::Console(absolute(socket)?))),
        (true, Mode::Foreground, None) if io::stdin().is_terminal() => Ok(Some(Terminal::Inherited)),
        (true, Mode::Foreground, None) => {
            Err(usage("process.terminal is true, but standard input is not a terminal"))
        }
        (false, _, None) => Ok(None),
    }
}

fn usage(message: &str) -> Error {
    Error::Usage { message: message.to_owned(), hint: None }
}

/// Where the processes go; `None` leaves them where the caller is.
fn place_for(context: &Context, bundle: &Bundle, id: &ContainerId) -> Result<Option<Place>, Error> {
    if context.cgroup_manager == CgroupManager::Disabled {
        return Ok(None);
    }
    if !cgroup::is_unified() {
        context.log.debug("/sys/fs/cgroup is not a cgroup2 hierarchy: no cgroup for the sandbox");
        return Ok(None);
    }
    let given = bundle.host.cgroups_path.as_deref();
    let tree = match context.cgroup_manager {
        CgroupManager::Systemd => Some(systemd::Tree::find().map_err(CgroupError::from)?),
        CgroupManager::Cgroupfs | CgroupManager::Disabled => None,
    };
    let path = cgroup::resolve(given, id, tree.as_ref())?;
    if tree.is_none()
        && given.is_none()
        && rustix::fs::access(cgroup::ROOT, rustix::fs::Access::WRITE_OK).is_err()
    {
        context.log.debug("/sys/fs/cgroup cannot be written: no cgroup for the sandbox");
        return Ok(None);
    }
    let scope = tree.and_then(|tree| Scope::at(&path, &Path::new(cgroup::ROOT).join(tree.group)));
    Ok(Some(Place { path, scope }))
}

/// Has the server create the container, and this command's proxy stand for it.
fn make(
    context: &Context,
    flags: &Flags,
    mode: Mode,
    checked: Checked,
    entered: Stamp,
) -> Result<Created, Error> {
    let Checked { id, bundle, terminal, home, cgroup, network } = checked;
    let root = absolute(&context.root)?;
    // People know a microVM by the container that it was made for.
    let sandbox: SandboxId = match &home {
        Home::Own { .. } => id.as_str().parse()?,
        Home::Joined(joined) => joined.sandbox.id().clone(),
    };
    let request = request(&bundle, &id, sandbox.clone(), cgroup.clone())?;
    let mut creation = match home {
        Home::Own { config, sizes, artefacts, foreign } => {
            let mut plan = SandboxPlan::new(&root, &sandbox, &id, &config, sizes);
            plan.foreign = foreign;
            plan.cgroup = cgroup;
            plan.limits = bundle.host.limits.clone();
            plan.memory = Demand::of_new(&bundle.guest, &bundle.host.pod, &plan.limits).memory();
            plan.oom_score_adj = bundle.guest.process.oom_score_adj;
            plan.debug = context.log.options().debug;
            plan.command_ns = entered.monotonic_ns;
            plan.network = bundle.host.network.as_ref().map(|given| given.path.clone());
            Creation::launch(&plan, &request, &artefacts, network.as_ref())?
        }
        Home::Joined(joined) => Creation::join(&root, joined.sandbox, &request)?,
    };
    let start = ProxyStart { root, sandbox, terminal, detach: mode == Mode::Detached, network };
    match complete(&mut creation, &id, &bundle, start, flags) {
        Ok((proxy, warnings)) => {
            for warning in &warnings {
                context.log.warn(warning);
            }
            context.log.entry(crate::log::Level::Info, "created", &[("container", id.as_str())]);
            Ok(Created { id, proxy, creation, terminal: bundle.host.terminal })
        }
        Err(error) => {
            creation.abort(&context.log);
            Err(error)
        }
    }
}

/// What the proxy of the container is to be, beside the container.
struct ProxyStart {
    root: PathBuf,
    sandbox: SandboxId,
    terminal: Option<Terminal>,
    detach: bool,
    network: Option<Namespace>,
}

/// Starts the proxy, which has the server make the container; then the hooks run, and callers hear of it. What the server warns
/// of comes along.
fn complete(
    creation: &mut Creation,
    id: &ContainerId,
    bundle: &Bundle,
    start: ProxyStart,
    flags: &Flags,
) -> Result<(proxy::Child, Vec<String>), Error> {
    let ProxyStart { root, sandbox, terminal, detach, network } = start;
    // Compiles a seccomp profile, while the VM boots.
    let container = ContainerPlan::of(bundle)?;
    let plan = proxy::Plan {
        root,
        sandbox,
        id: id.clone(),
        work: Work::Create(Box::new(container)),
        terminal,
        detach,
        view: bundle.host.rootfs.clone(),
    };
    let network = network.map_or(proxy::Network::Fresh, proxy::Network::Given);
    let mut proxy = proxy::Child::spawn(&plan, &network)?;
    wait_ready(&mut proxy)?;
    // The hooks find them there, and the start gives them to the guest.
    let moved = move_devices(&bundle.host.net_devices, proxy.process.pid)?;
    creation.run_hooks(proxy.process.pid)?;
    publish(&proxy, flags.pid_file.as_deref(), flags.pidfd_socket.as_deref())?;
    let warnings = creation.commit()?;
    if let Some(moved) = moved {
        moved.stay();
    }
    Ok((proxy, warnings))
}

/// Into the network namespace of the proxy, which is the container's.
fn move_devices(devices: &[NetDevice], proxy: u32) -> Result<Option<Moved>, Error> {
    if devices.is_empty() {
        return Ok(None);
    }
    let namespace = Namespace::open(format!("/proc/{proxy}/ns/net").as_ref())?;
    Ok(Some(network::move_devices(devices, &namespace)?))
}

/// What the server is asked for.
fn request(
    bundle: &Bundle,
    id: &ContainerId,
    sandbox: SandboxId,
    cgroup: Option<Place>,
) -> Result<CreationRequest, Error> {
    let record = Record {
        oci_version: bundle.host.oci_version.clone(),
        id: id.to_string(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.host.rootfs.clone(),
        created: rfc3339(SystemTime::now()),
        annotations: bundle.host.annotations.clone(),
        owner: owner(),
        hooks: bundle.host.hooks.clone(),
        sandbox,
        proxy: None,
        disks: bundle.has_disks(),
    };
    let caller = Process::current().map_err(|e| Error::io("read this command's pid", e))?;
    // What is not UTF-8 is in no value that was read.
    let config = String::from_utf8_lossy(&bundle.json).into_owned();
    Ok(CreationRequest { record, config, cgroup, caller })
}

/// Hears the proxy's report: what the server answered it, or what it failed with itself.
pub(super) fn wait_ready(proxy: &mut proxy::Child) -> Result<(), Error> {
    let progress = io::stderr().is_terminal();
    // Once after a second, so that nobody wonders, and then now and again.
    let tick = |waited: Duration| {
        let seconds = waited.as_secs();
        if progress && (seconds == 1 || seconds.is_multiple_of(10)) {
            note(&format!("bulkhead: the microVM is not ready yet ({seconds} s)"));
        }
    };
    match proxy.ready(READY, tick)? {
        Report::Ready => Ok(()),
        Report::Failed { message, hint } => Err(Error::Sandbox { message, hint }),
    }
}

/// Tells the caller who stands for the process. Before this command ends: callers read the file when it does.
pub(super) fn publish(
    proxy: &proxy::Child,
    pid_file: Option<&Path>,
    pidfd_socket: Option<&Path>,
) -> Result<(), Error> {
    if let Some(path) = pid_file {
        write_atomically(path, proxy.process.pid.to_string().as_bytes())?;
    }
    pidfd_socket.map_or(Ok(()), |path| publish_pidfd(&proxy.process, path))
}

pub(super) fn publish_pidfd(process: &Process, socket: &Path) -> Result<(), Error> {
    let failed = |e| Error::io(format!("send the pidfd to {}", socket.display()), e);
    let pidfd = process.pidfd().map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    send_fd(socket, std::os::fd::AsFd::as_fd(&pidfd), b"pidfd").map_err(failed)
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|e| Error::io(format!("find {}", path.display()), e))
}

/// The name of the user who runs this, as `list` shows it.
fn owner() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.unwrap_or_default()
}

#[cfg(test)]
mod tests;
