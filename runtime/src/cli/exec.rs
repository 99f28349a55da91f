//! `bulkhead exec`: a further process in a container that is created or runs.
//!
//! In the foreground this command is the proxy itself: it pumps, relays signals and exits as the process did. Detached
//! it leaves a proxy behind, as `create` does.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
};

use bulkhead_protocol::{
    container::ProcessSpec,
    id::{ContainerId, ExecId},
};

use super::{
    Context, caller,
    create::{Mode, absolute, publish, publish_pidfd, terminal, wait_ready},
    preserve,
};
use crate::{
    api::container::{Container, not_running},
    container::{ExecPlan, status::Status},
    error::Error,
    proxy::{self, RawMode, Relay, Session, Terminal, Work},
    sandbox::oom_score,
    spec::{self, CheckedProcess, ExecFlags, Policy},
    store::{Process, names, write_atomically},
};

const PAUSED: &str = "cannot exec in a paused container (use --ignore-paused to override)";

/// Run a further process in a container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File with the process as JSON, instead of a command
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Unix socket that receives the master of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process that stands for it
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Set a variable: KEY=VALUE
    #[arg(short, long, value_name = "VAR")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// UID[:GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Further group ids
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Return when the process runs
    #[arg(short, long)]
    detach: bool,
    /// File that gets the pid of the process that stands for it
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// As the field of the spec: a warning, for the guest has no SELinux
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// As the field of the spec: a warning, for the guest has no AppArmor
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// No new privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Number of further descriptors to pass: 0, since none can be passed into a microVM
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// A cgroup below the container's, which exists there
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// In a paused container, wait for its resumption instead of failing
    #[arg(long)]
    ignore_paused: bool,
    /// Name of the process in the sandbox server, for the shim; else one is drawn
    #[arg(long, hide = true, value_name = "ID")]
    exec_id: Option<String>,
    /// Name of the container, then the command and its arguments
    // One list, so that flags end at the id, as with runc.
    #[arg(value_names = ["ID", "COMMAND"], required = true, num_args = 1.., trailing_var_arg = true)]
    id_and_command: Vec<String>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let id: ContainerId = self.id_and_command.first().map_or("", String::as_str).parse()?;
        self.exec(context, &id).map_err(|error| error.during(format!("exec in {id}")))
    }

    fn exec(&self, context: &Context, id: &ContainerId) -> Result<u8, Error> {
        self.refuse()?;
        let container = Container::open(&context.root, id)?;
        let policy = context.config()?.policy;
        let CheckedProcess { mut process, warnings } = self.checked_process(&container, &policy)?;
        for warning in &warnings {
            context.log.warn(warning);
        }
        let mode = if self.detach { Mode::Detached } else { Mode::Foreground };
        let terminal = self.terminal(&process, mode)?;
        caller::inherit_limits(&mut process);
        process.plain_line_feeds = terminal.as_ref().is_some_and(Terminal::adds_carriage_returns);
        match container.status()? {
            Status::Created | Status::Starting | Status::Running => {}
            // The server says the same to one that comes later.
            Status::Paused if self.ignore_paused => {}
            Status::Paused => return Err(Error::Refused(PAUSED.into())),
            Status::Creating | Status::Stopped => return Err(not_running().into()),
        }
        let plan = proxy::Plan {
            root: absolute(&context.root)?,
            sandbox: container.record.sandbox.clone(),
            id: id.clone(),
            work: Work::Exec { exec_id: self.exec_id()?, plan: Box::new(self.plan(process)) },
            terminal,
            detach: self.detach,
            view: container.record.rootfs.clone(),
        };
        if self.detach { self.leave(&container, &plan) } else { self.stay(&container, &plan) }
    }

    fn plan(&self, process: ProcessSpec) -> ExecPlan {
        // As runc does, `/` is the container's own.
        let cgroup = self.cgroup.as_deref().unwrap_or_default().trim_matches('/').to_owned();
        ExecPlan { process, ignore_paused: self.ignore_paused, cgroup }
    }

    fn exec_id(&self) -> Result<ExecId, Error> {
        if let Some(id) = &self.exec_id {
            return Ok(id.parse()?);
        }
        let hex = proxy::random_hex().map_err(|e| Error::io("draw an exec id", e))?;
        Ok(hex.parse()?)
    }

    fn refuse(&self) -> Result<(), Error> {
        preserve::refuse(self.preserve_fds)?;
        if self.cgroup.as_deref().is_some_and(|path| path.contains(':')) {
            let message = "--cgroup CONTROLLER:PATH is not supported: the guest has cgroup2 alone".to_owned();
            return Err(Error::Usage { message, hint: None });
        }
        Ok(())
    }

    fn checked_process(&self, container: &Container, policy: &Policy) -> Result<CheckedProcess, Error> {
        if let Some(file) = &self.process {
            return Ok(spec::load_process(file, policy)?);
        }
        let command = self.id_and_command.get(1..).unwrap_or_default();
        if command.is_empty() {
            return Err(Error::Usage {
                message: "give a command, or a process with --process".into(),
                hint: None,
            });
        }
        let flags = ExecFlags {
            args: command.to_vec(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            additional_gids: self.additional_gids.clone(),
            terminal: self.tty,
            no_new_privileges: self.no_new_privs,
            capabilities: self.cap.clone(),
            apparmor_profile: self.apparmor.clone(),
            selinux_label: self.process_label.clone(),
        };
        let path = container.dir.join(names::CONFIG);
        let mut config = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(bulkhead_protocol::limits::CONFIG_JSON).read_to_end(&mut config))
            .map_err(|e| Error::io(format!("read {}", path.display()), e))?;
        Ok(spec::exec_process(&config, &flags, policy)?)
    }

    /// `--tty` of a foreground exec works without a terminal of ours too, as runc's does: then only bytes are copied.
    fn terminal(&self, process: &ProcessSpec, mode: Mode) -> Result<Option<Terminal>, Error> {
        if process.terminal && mode == Mode::Foreground && self.console_socket.is_none() {
            return Ok(Some(Terminal::Inherited));
        }
        terminal(process.terminal, mode, self.console_socket.as_deref())
    }

    fn leave(&self, container: &Container, plan: &proxy::Plan) -> Result<u8, Error> {
        let path = format!("/proc/{}/ns/net", container.pid(Status::Running));
        let network = match fs::File::open(&path) {
            Ok(network) => proxy::Network::Joined(network),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_running().into()),
            Err(e) => return Err(Error::io(format!("open {path}"), e)),
        };
        let mut proxy = proxy::Child::spawn(plan, &network)?;
        wait_ready(&mut proxy)?;
        publish(&proxy, self.pid_file.as_deref(), self.pidfd_socket.as_deref())?;
        Ok(0)
    }

    fn stay(&self, container: &Container, plan: &proxy::Plan) -> Result<u8, Error> {
        if let Some(score) = plan.work.oom_score_adj() {
            oom_score::set_own(score)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("start", e))?;
        runtime.block_on(async {
            let sandbox = container.sandbox.as_ref().ok_or_else(not_running)?;
            let session = match Session::open(&sandbox.dir, plan).await {
                Err(error) if error.is_gone() => return Err(not_running().into()),
                other => other?,
            };
            let own = std::process::id().to_string();
            if let Some(path) = &self.pid_file {
                write_atomically(path, own.as_bytes())?;
            }
            if let Some(path) = &self.pidfd_socket {
                let own = Process::current().map_err(|e| Error::io("read this process's pid", e))?;
                publish_pidfd(&own, path)?;
            }
            let relay = Relay::install().map_err(|e| Error::io("take signals", e))?;
            let _raw = (plan.terminal.is_some() && io::stdin().is_terminal())
                .then(|| RawMode::enter(io::stdin()))
                .transpose()
                .map_err(|e| Error::io("make the terminal raw", e))?;
            Ok(session.run(relay).await)
        })
    }
}
