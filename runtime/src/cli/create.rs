//! `bulkhead create`: everything up to the user's program, which waits for `start`. Shared with `run`.
//!
//!   check all ─▶ claim the id ─▶ server (boots the VM) ║ proxy (waits for it, then makes the container)
//!     ─▶ report ─▶ hooks ─▶ state.json, pid file ─▶ the server is told that it is complete
//!
//! Until the last step a failure, or the death of this command, removes everything again.

mod join;

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bulkhead_protocol::{
    id::ContainerId,
    limits,
    timeline::{Phase, Stamp},
};

use self::join::Joined;
use super::{CgroupManager, Context};
use crate::{
    config::{Artefacts, Config},
    error::Error,
    hooks::Subject,
    log::note,
    network::Namespace,
    proxy::{self, Report, Terminal, Work, send_fd},
    sandbox::{
        ContainerPlan, Launch, Plan,
        cgroup::{self, CgroupError, Claim},
        sizing::{self, Sizes},
    },
    spec::{self, Bundle, HostPart, NetworkPath, Vm},
    store::{Locked, Process, Record, names, write_atomically},
    systemd::{self, Scope},
    time::rfc3339,
    undo,
};

/// For the container to be made: the boot, then the set-up in the guest.
const READY: Duration =
    Duration::from_secs(limits::BOOT.as_secs() + limits::RPC.as_secs() + limits::CONTROL.as_secs());

/// Create a container; its program waits for `start`
#[derive(Debug, clap::Args)]
#[command(override_usage = "bulkhead create [OPTIONS] <ID>")]
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
    /// Number of further descriptors to pass: only 0 is possible across a VM
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Name of the container
    // A list of one, so that flags end at the id, as with runc.
    #[arg(value_name = "ID", required = true, num_args = 1.., trailing_var_arg = true)]
    id: Vec<String>,
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
    /// `None` in the microVM of another container.
    pub(super) server: Option<Launch>,
    pub(super) terminal: bool,
}

/// All that is known before anything is touched.
struct Checked {
    id: ContainerId,
    bundle: Bundle,
    terminal: Option<Terminal>,
    home: Home,
    cgroup: Option<PathBuf>,
    network: Option<Namespace>,
}

/// Where the container lives.
enum Home {
    /// In a microVM of its own.
    Own { config: Config, sizes: Sizes, artefacts: Artefacts },
    /// In that of another container.
    Joined(Joined),
}

impl Created {
    pub(super) fn make(context: &Context, flags: &Flags, mode: Mode) -> Result<Self, Error> {
        let entered = Stamp::now(Phase::Command);
        let [id] = flags.id.as_slice() else {
            return Err(usage("give one id, after the flags"));
        };
        let id: ContainerId = id.parse()?;
        let step = |error: Error| error.during(format!("create {id}"));
        let checked = check(context, flags, mode, &id).map_err(step)?;
        for warning in &checked.bundle.host.warnings {
            context.log.warn(warning);
        }
        let root = absolute(&context.root).map_err(step)?;
        let dir = undo::claim(&root, &id).map_err(|e| step(e.into()))?;
        let made = make(context, mode, checked, &dir, &root, entered);
        let begun = made.as_ref().ok().map(|made| made.record.clone());
        match made.and_then(|made| made.finish(context, flags, &dir)) {
            Ok(created) => Ok(created),
            Err(error) => {
                if let Err(left) = undo::everything(&dir) {
                    context.log.warn(&format!("undo create {id}: {}", crate::error::chain(&left)));
                }
                // The hooks before may have made something that these undo.
                if let Some(record) = begun {
                    Subject::from(&record).poststop(&context.log);
                }
                Err(step(error))
            }
        }
    }
}

fn check(context: &Context, flags: &Flags, mode: Mode, id: &ContainerId) -> Result<Checked, Error> {
    if flags.preserve_fds > 0 {
        return Err(usage("descriptors cannot be passed into a microVM: --preserve-fds must be 0"));
    }
    if flags.no_pivot {
        context.log.debug("--no-pivot has no meaning in a microVM");
    }
    let config = context.config()?;
    let mut bundle = spec::load(&flags.bundle, id, &config.policy)?;
    let terminal = terminal(bundle.host.terminal, mode, flags.console_socket.as_deref())?;
    let joined = join::resolve(&context.root, &mut bundle)?;
    let cgroup = cgroup_for(context, &bundle, id)?;
    let HostPart { vm, limits, warnings, .. } = &mut bundle.host;
    let home = match joined {
        Some(joined) => {
            if *vm != Vm::default() {
                warnings
                    .push(format!("vm has no effect: the microVM belongs to container {}", joined.sandbox));
            }
            warnings.extend(limits.lost_in(joined.sandbox.as_str()));
            Home::Joined(joined)
        }
        None => {
            let config = sizing::artefacts(config, vm)?;
            warnings.extend(cgroup::limits::check(cgroup.as_deref(), limits)?);
            let sizes = sizing::sizes(&config, vm, &bundle.guest.resources, limits, warnings)?;
            let artefacts = config.open_artefacts()?;
            Home::Own { config, sizes, artefacts }
        }
    };
    let open = |given: &NetworkPath| {
        Namespace::open(&given.path).map_err(|error| Error::from(error).during(&given.field))
    };
    let network = bundle.host.network.as_ref().map(open).transpose()?;
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
fn cgroup_for(context: &Context, bundle: &Bundle, id: &ContainerId) -> Result<Option<PathBuf>, Error> {
    if context.cgroup_manager == CgroupManager::Disabled {
        return Ok(None);
    }
    if !cgroup::is_unified() {
        context.log.debug("/sys/fs/cgroup is not a cgroup2 hierarchy: no cgroup for the sandbox");
        return Ok(None);
    }
    let path = bundle.host.cgroups_path.as_deref();
    let systemd = context.cgroup_manager == CgroupManager::Systemd;
    if systemd {
        systemd::is_there().map_err(CgroupError::from)?;
    }
    let resolved = cgroup::resolve(path, id, systemd)?;
    if path.is_none() && rustix::fs::access(cgroup::ROOT, rustix::fs::Access::WRITE_OK).is_err() {
        context.log.debug("/sys/fs/cgroup cannot be written: no cgroup for the sandbox");
        return Ok(None);
    }
    Ok(Some(resolved))
}

/// A container that is parked in its VM, and not recorded yet. Dropping it ends the server.
struct Made {
    id: ContainerId,
    proxy: proxy::Child,
    server: Option<Launch>,
    record: Record,
    terminal: bool,
}

fn make(
    context: &Context,
    mode: Mode,
    checked: Checked,
    dir: &Locked,
    root: &Path,
    entered: Stamp,
) -> Result<Made, Error> {
    let Checked { id, bundle, terminal, home, cgroup, network } = checked;
    let scope = scope_for(context, cgroup.as_deref());
    if let Some(path) = &cgroup {
        cgroup::refuse_taken(path, root, &id)?;
    }
    write_atomically(&dir.join(names::CONFIG), &bundle.json)?;
    let mut own_cgroup = None;
    let (server, sandbox, server_process) = match home {
        Home::Own { config, sizes, artefacts } => {
            let mut plan = Plan::new(root, &id, &config, sizes);
            plan.cgroup = cgroup;
            plan.scope = scope;
            plan.limits = bundle.host.limits.clone();
            plan.memory = sizing::Demand::of(&bundle.guest.resources, &plan.limits).memory();
            plan.oom_score_adj = bundle.guest.process.oom_score_adj;
            plan.debug = context.log.options().debug;
            plan.command_ns = entered.monotonic_ns;
            plan.network = bundle.host.network.as_ref().map(|given| given.path.clone());
            let server = Launch::start(dir, plan, &artefacts, network.as_ref())?;
            let process = server.process;
            (Some(server), None, process)
        }
        Home::Joined(Joined { sandbox, server }) => {
            dir.share(names::SERVER_SOCKET, &sandbox)?;
            dir.share(names::VSOCK_SOCKET, &sandbox)?;
            own_cgroup = cgroup.map(|path| OwnCgroup::prepare(path, scope, dir)).transpose()?;
            (None, Some(sandbox), server)
        }
    };
    // Compiles a seccomp profile, while the server boots the VM.
    let container = ContainerPlan::of(&bundle)?;
    let network = network.map_or(proxy::Network::Fresh, proxy::Network::Given);
    let proxy_plan = proxy::Plan {
        root: root.to_owned(),
        id: id.clone(),
        work: Work::Create(Box::new(container)),
        terminal,
        detach: mode == Mode::Detached,
        view: bundle.host.rootfs.clone(),
    };
    let mut proxy = proxy::Child::spawn(&proxy_plan, &network)?;
    wait_ready(&mut proxy, server.as_ref())?;
    if let Some(own) = own_cgroup {
        own.enter(&id, proxy.process.pid, dir)?;
    }

    let record = Record {
        oci_version: bundle.host.oci_version.clone(),
        id: id.to_string(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.host.rootfs.clone(),
        created: rfc3339(SystemTime::now()),
        annotations: bundle.host.annotations.clone(),
        owner: owner(),
        hooks: bundle.host.hooks.clone(),
        proxy: proxy.process,
        server: server_process,
        sandbox,
    };
    Ok(Made { id, proxy, server, record, terminal: bundle.host.terminal })
}

/// The unit of a cgroup, where systemd is to make it.
fn scope_for(context: &Context, cgroup: Option<&Path>) -> Option<Scope> {
    cgroup
        .filter(|_| context.cgroup_manager == CgroupManager::Systemd)
        .and_then(|path| Scope::at(path, cgroup::ROOT.as_ref()))
}

/// The cgroup of a container in the microVM of another one, in which its proxy is alone.
enum OwnCgroup {
    Made {
        path: PathBuf,
        _claim: Claim,
    },
    /// systemd makes it with the proxy in it.
    Scope {
        path: PathBuf,
        scope: Scope,
    },
}

impl OwnCgroup {
    fn prepare(path: PathBuf, scope: Option<Scope>, dir: &Locked) -> Result<Self, CgroupError> {
        match scope {
            Some(scope) => Ok(Self::Scope { path, scope }),
            None => Ok(Self::Made { _claim: cgroup::make(&path, &dir.journal())?, path }),
        }
    }

    fn enter(self, id: &ContainerId, proxy: u32, dir: &Locked) -> Result<(), CgroupError> {
        match self {
            Self::Made { path, .. } => cgroup::enter(&path, proxy),
            Self::Scope { path, scope } => cgroup::scope::make(&path, &scope, id, proxy, &dir.journal()),
        }
    }
}

impl Made {
    /// Runs the hooks, and makes it a container that others find.
    fn finish(self, context: &Context, flags: &Flags, dir: &Locked) -> Result<Created, Error> {
        let Self { id, proxy, mut server, record, terminal } = self;
        Subject::from(&record).create(proxy.process.pid)?;
        let json = serde_json::to_vec(&record).map_err(|e| Error::io("write state.json", e.into()))?;
        write_atomically(&dir.join(names::STATE), &json)?;
        publish(&proxy, flags.pid_file.as_deref(), flags.pidfd_socket.as_deref())?;
        if let Some(server) = &mut server {
            server.complete()?;
        }
        context.log.entry(crate::log::Level::Info, "created", &[("container", id.as_str())]);
        Ok(Created { id, proxy, server, terminal })
    }
}

/// Hears the proxy's report; the server's own last words are better than the proxy's "it is gone".
pub(super) fn wait_ready(proxy: &mut proxy::Child, server: Option<&Launch>) -> Result<(), Error> {
    let progress = io::stderr().is_terminal();
    // Once after a second, so that nobody wonders, and then now and again.
    let tick = |waited: Duration| {
        let seconds = waited.as_secs();
        if progress && (seconds == 1 || seconds.is_multiple_of(10)) {
            note(&format!("bulkhead: the microVM is not ready yet ({seconds} s)"));
        }
    };
    let (message, gone) = match proxy.ready(READY, tick) {
        Ok(Report::Ready) => return Ok(()),
        Ok(Report::Failed { message, gone }) => (message, gone),
        Err(error) => (crate::error::chain(&error), true),
    };
    // A boot that failed is told to both.
    let unbooted = message.starts_with("boot sandbox");
    match server.filter(|_| gone || unbooted).and_then(Launch::last_words) {
        Some((message, hint)) => Err(Error::Sandbox { message, hint }),
        None => Err(Error::Sandbox { message, hint: None }),
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

/// Where something went that must not fail the command.
pub(super) fn log_left_over(context: &Context, what: &str, result: Result<(), impl std::error::Error>) {
    if let Err(error) = result {
        context.log.warn(&format!("{what}: {}", crate::error::chain(&error)));
    }
}

#[cfg(test)]
mod tests;
