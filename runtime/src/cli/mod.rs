//! The command line: runc's, so that podman, docker, CRI-O and containerd can call it in runc's place.
//!
//!   argv ─clap─▶ Cli ─▶ Context (root, log, config: what the global flags say) ─▶ Command::run ─▶ exit code
//!
//! One file per command: its flags as a struct `Args`, and `run(self, &Context)`. A new command is such a file and
//! one line in `Command`. Help comes from the doc comments.

mod caller;
mod checkpoint;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod preserve;
mod ps;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bulkhead_protocol::id::ContainerId;
use bulkhead_sys::text::printable;
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::{
    api::{self, container::Container},
    config::Config,
    error::Error,
    log::{Format, Log, LogOptions, note},
    proxy, sandbox, shed,
};

/// Run OCI containers, each in a microVM of its own
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    version = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0"),
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_override_self = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Log debug messages
    #[arg(long)]
    debug: bool,
    /// Append log entries to this file; errors go to standard error as well
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Format of the entries in the log file
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
    /// Directory for the state of containers [default: /run/bulkhead, or $XDG_RUNTIME_DIR/bulkhead without root]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Read `cgroupsPath` as slice:prefix:name, a scope that systemd makes
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for callers of runc: auto, true or false
    #[arg(long, value_name = "MODE", value_parser = ["auto", "true", "false"], default_value = "auto")]
    rootless: String,
    /// Who places processes in cgroups
    #[arg(long, value_enum, value_name = "NAME", default_value = "cgroupfs")]
    cgroup_manager: CgroupManager,
    /// Configuration file [default: /etc/bulkhead/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    command: Command,
}

/// crun's flag: podman passes `disabled` for `--cgroups=disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Create(Box<create::Args>),
    Start(start::Args),
    State(state::Args),
    Kill(kill::Args),
    Delete(delete::Args),
    Exec(Box<exec::Args>),
    List(list::Args),
    Ps(ps::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Update(Box<update::Args>),
    Events(events::Args),
    Spec(spec::Args),
    Features(features::Args),
    Doctor(doctor::Args),
    Checkpoint(checkpoint::Args),
    Restore(checkpoint::Args),
}

impl Command {
    fn run(self, context: &Context) -> Result<u8, Error> {
        match self {
            Self::Run(args) => args.run(context),
            Self::Create(args) => args.run(context),
            Self::Start(args) => args.run(context),
            Self::State(args) => args.run(context),
            Self::Kill(args) => args.run(context),
            Self::Delete(args) => args.run(context),
            Self::Exec(args) => args.run(context),
            Self::List(args) => args.run(context),
            Self::Ps(args) => args.run(context),
            Self::Pause(args) => args.run(context),
            Self::Resume(args) => args.run(context),
            Self::Update(args) => args.run(context),
            Self::Events(args) => args.run(context),
            Self::Spec(args) => args.run(context),
            Self::Features(args) => args.run(context),
            Self::Doctor(args) => args.run(context),
            Self::Checkpoint(args) => args.run("checkpoint"),
            Self::Restore(args) => args.run("restore"),
        }
    }

    /// The exit code for a failure of the runtime itself. For `exec` it is 255, which no other error of runc's is:
    /// callers tell it from the code of the process.
    fn failure_code(&self) -> u8 {
        if matches!(self, Self::Exec(_)) { 255 } else { 1 }
    }
}

/// What the global flags say.
#[derive(Debug)]
pub struct Context {
    /// Holds one directory per container.
    pub root: PathBuf,
    pub log: Log,
    pub cgroup_manager: CgroupManager,
    config: Option<PathBuf>,
}

impl Context {
    /// The configuration. Read only by the commands that need it: a bad file must not keep anyone from `delete`.
    ///
    /// # Errors
    /// As `Config::load`.
    pub fn config(&self) -> Result<Config, Error> {
        Ok(Config::load(self.config.as_deref())?)
    }

    /// `--config`, to be handed to a server.
    pub fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// Parses the arguments of this process, runs the command, reports its error and returns the exit code.
pub fn main() -> u8 {
    if let Err(error) = shed::descriptors() {
        note(&format!("bulkhead: {}", bulkhead_sys::chain(&error)));
        return 1;
    }
    // Commands of our own, which each start of a container waits for: not worth building a parser. The id that follows
    // is for people who read the process list; the plan comes over a socket.
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some(api::server::COMMAND) => return api::server::main(),
        Some(sandbox::cgroup::scope::COMMAND) => return sandbox::cgroup::scope::main(),
        Some(sandbox::cgroup::oom::COMMAND) => return sandbox::cgroup::oom::main(),
        Some(proxy::COMMAND) => return proxy::main(),
        _ => {}
    }
    match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Help and version are "errors" of clap's that go to standard output.
            let code = u8::from(error.use_stderr());
            let _ = error.print();
            code
        }
    }
}

impl Cli {
    fn run(self) -> u8 {
        let failure_code = self.command.failure_code();
        let options = LogOptions { path: self.log, format: self.log_format, debug: self.debug };
        let log = match Log::open(options.clone()) {
            Ok(log) => log,
            Err(source) => {
                let path = options.path.as_deref().unwrap_or(Path::new("")).display();
                let error = Error::io(format!("open log {path}"), source);
                note(&format!("bulkhead: {}", error.chain()));
                return failure_code;
            }
        };
        let cgroup_manager = if self.systemd_cgroup { CgroupManager::Systemd } else { self.cgroup_manager };
        let root = self.root.unwrap_or_else(default_root);
        let context = Context { root, log, cgroup_manager, config: self.config };
        match self.command.run(&context) {
            Ok(code) => code,
            Err(error) => {
                report(&context.log, &error);
                failure_code
            }
        }
    }
}

/// Says it once. The hint is for people, on standard error; a caller's log has the chain in one line.
fn report(log: &Log, error: &Error) {
    log.error(&error.chain());
    if let Some(hint) = error.hint() {
        note(&format!("  hint: {hint}"));
    }
}

/// One command about one container that exists: its errors say what was being done to which.
fn with_container<T>(
    context: &Context,
    id: &str,
    doing: &str,
    work: impl FnOnce(&Container) -> Result<T, Error>,
) -> Result<T, Error> {
    let id: ContainerId = id.parse()?;
    let opened = Container::open(&context.root, &id).map_err(Error::from);
    opened.and_then(|container| work(&container)).map_err(|error| error.during(format!("{doing} {id}")))
}

/// Writes a value as JSON to standard output.
fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(value).map_err(|e| Error::io("write JSON", e.into()))?;
    print(&(json + "\n"))
}

/// Writes to standard output. Unlike `println!`, a reader that went away is an error and not a panic.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(printable(text).as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::io("write standard output", error))
}

fn default_root() -> PathBuf {
    let user = std::env::var_os("USER");
    let root = nix::unistd::geteuid().is_root()
        && (bulkhead_sys::user_namespace::is_initial() || user.is_some_and(|user| user == "root"));
    default_root_of(root, std::env::var_os("XDG_RUNTIME_DIR"))
}

/// `root` is a machine's or a container's own. A rootless engine is root of a user namespace as well, by the name of its user or by
/// none: it and its user, who is outside of that namespace, must find the same containers. runc goes by the same.
fn default_root_of(root: bool, session: Option<OsString>) -> PathBuf {
    let of_user = session.filter(|dir| !root && !dir.is_empty());
    of_user.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("bulkhead")
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
