//! `bulkhead-lab`: a machine with a working `/dev/kvm`, as a command.
//!
//! Exit status: the command's own (128 + signal when it was killed), 124 when its deadline passed, 125 when the lab
//! failed. Errors are printed here and nowhere else.

use std::error::Error as _;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use bulkhead_tests::lab::client::{self, Input, Lab, Options};
use bulkhead_tests::lab::decision::{self, Where};
use bulkhead_tests::lab::machine::Size;
use bulkhead_tests::lab::places::StateDir;
use bulkhead_tests::lab::soak::{self, End, Plan};
use bulkhead_tests::lab::supervisor::{self, Config};
use bulkhead_tests::lab::variant::Variant;
use bulkhead_tests::lab::wire::Request;
use bulkhead_tests::lab::{Error, assets, guest, terminal};
use clap::{Args, Parser, Subcommand};

const EXIT_DEADLINE: u8 = 124;
const EXIT_LAB: u8 = 125;
/// Tells a command where its results go: `/lab/out` in a lab, the host's directory itself without one.
const OUT: &str = "BULKHEAD_OUT";
/// Tells a command what it runs on: `lab` or `kvm`.
const PLACE: &str = "BULKHEAD_PLACE";

/// A machine with a working /dev/kvm, on any build machine.
#[derive(Parser)]
struct Cli {
    /// Which kept-alive lab is meant.
    #[arg(long, global = true, default_value = "lab", env = "BULKHEAD_LAB")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs one command in a fresh lab.
    Run {
        #[command(flatten)]
        boot: Boot,
        /// Uses the kept-alive lab when it is up.
        #[arg(long)]
        reuse: bool,
        /// Runs it right here, without a lab, when this machine's /dev/kvm runs stock guests. Says so on stderr.
        #[arg(long)]
        if_needed: bool,
        /// Runs it once more, in a fresh lab, when it fails in a lab or the lab does. Says so on stderr.
        #[arg(long)]
        second_try: bool,
        #[command(flatten)]
        command: Exec,
    },
    /// Starts a lab that stays up.
    Up(Boot),
    /// Runs one command in the kept-alive lab.
    Exec(Exec),
    /// Opens a shell in the kept-alive lab, or in a fresh one when none is up.
    Shell(Boot),
    /// Ends the kept-alive lab.
    Down,
    /// Tells whether the kept-alive lab is up; exit status 0 when it is.
    Status,
    /// Tells in one line where things that need KVM run here, and why.
    Where,
    /// Boots many microVMs in a lab of its own and counts how they end; exit status 0 when all were good.
    Soak(Soak),
    /// Fetches and builds what a lab is made of, if this machine needs one.
    Prepare {
        /// Without podman and docker.
        #[arg(long)]
        without_engines: bool,
    },
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        boot: Boot,
    },
    #[command(hide = true)]
    GuestInit,
    #[command(hide = true)]
    GuestServe,
    #[command(hide = true)]
    GuestShake,
}

#[derive(Args)]
struct Boot {
    /// Memory of the lab in MiB.
    #[arg(long, default_value_t = 8192, env = "BULKHEAD_LAB_MEMORY")]
    memory: u32,
    /// CPUs of the lab.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Host directory that is /lab/out in the lab.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seconds until the lab must be up.
    #[arg(long, default_value_t = 180)]
    boot_timeout: u64,
    /// A lab without podman and docker, so that they need not be fetched.
    #[arg(long)]
    without_engines: bool,
    #[command(flatten)]
    variant: Variant,
}

impl Boot {
    fn options(&self) -> Options {
        Options {
            size: Size { memory_mib: self.memory, cpus: self.cpus },
            variant: self.variant.clone(),
            engines: !self.without_engines,
            out: self.out.clone(),
            boot_deadline: Duration::from_secs(self.boot_timeout),
        }
    }
}

#[derive(Args)]
struct Exec {
    /// Seconds until the command is killed; 0 for no limit.
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
    /// Gives the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Working directory; the caller's by default.
    #[arg(long)]
    cwd: Option<String>,
    /// Sets a variable, as KEY=VALUE; may be repeated.
    #[arg(short, long)]
    env: Vec<String>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct Soak {
    #[command(flatten)]
    boot: Boot,
    /// How many at a time.
    #[arg(short, long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Seconds after which a boot counts as silent.
    #[arg(long, default_value_t = 120)]
    deadline: u64,
    /// Makes the lab's processors stand still 2,500 times a second, which brings faults of its emulation out.
    #[arg(long)]
    shake: bool,
    /// A shell command that each lab runs first.
    #[arg(long)]
    prepare: Option<String>,
    /// A shell command that the lab runs after a failure; what it prints is kept with the failure's message.
    #[arg(long)]
    examine: Option<String>,
    /// How many microVMs to boot.
    boots: u32,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match act(&cli.action, &StateDir::named(&cli.name)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error);
            ExitCode::from(if matches!(error, Error::Deadline { .. }) { EXIT_DEADLINE } else { EXIT_LAB })
        }
    }
}

fn act(action: &Action, dir: &StateDir) -> Result<u8, Error> {
    match action {
        Action::Run { boot, reuse, if_needed, second_try, command } => {
            if *if_needed {
                let place = decision::decide();
                eprintln!("running on {place}");
                if matches!(place, Where::Kvm { .. }) {
                    return run_here(boot, command);
                }
            }
            let first = match *reuse && client::is_up(dir) {
                true => execute(dir, command),
                false => in_fresh_lab(boot, command),
            };
            match first {
                Ok(0) => Ok(0),
                failed if *second_try => {
                    tell_of_second_try(&failed);
                    in_fresh_lab(boot, command)
                }
                failed => failed,
            }
        }
        Action::Up(boot) => client::keep(dir, &boot.options()).map(|()| 0),
        Action::Exec(command) => execute(dir, command),
        Action::Shell(boot) if !client::is_up(dir) => {
            let lab = Lab::start(&boot.options())?;
            execute(lab.dir(), &shell())
        }
        Action::Shell(_) => execute(dir, &shell()),
        Action::Down => client::end(dir).map(|()| 0),
        Action::Status => {
            let up = client::is_up(dir);
            println!("{}: {}", dir.name(), if up { "up" } else { "down" });
            Ok(u8::from(!up))
        }
        Action::Where => {
            println!("{}", decision::decide());
            Ok(0)
        }
        Action::Soak(soak) => self::soak(soak),
        Action::Prepare { without_engines } => match decision::decide() {
            Where::Kvm { .. } => Ok(0),
            Where::Lab { .. } => assets::prepare(&Variant::default(), !without_engines).map(|_| 0),
        },
        Action::Supervise { dir, boot } => {
            let dir = StateDir::at(dir);
            let Options { size, variant, engines, out, boot_deadline } = boot.options();
            let out = out.unwrap_or_else(|| dir.out());
            supervisor::supervise(&Config { dir, size, variant, engines, out, boot_deadline }).map(|()| 0)
        }
        Action::GuestInit => guest::init(),
        Action::GuestServe => guest::serve().map(|never| match never {}),
        Action::GuestShake => guest::shake::shake(),
    }
}

fn in_fresh_lab(boot: &Boot, command: &Exec) -> Result<u8, Error> {
    let lab = Lab::start(&boot.options())?;
    execute(lab.dir(), command)
}

fn tell_of_second_try(failed: &Result<u8, Error>) {
    let how = match failed {
        Ok(status) => format!("the command ended with status {status}"),
        Err(error) => {
            complain(error);
            "the lab failed".to_owned()
        }
    };
    eprintln!("{how}; the lab's emulation has faults (docs/lab.md), so it gets a second try in a fresh lab");
}

/// Prints each failure as it happens and one line of figures at the end.
fn soak(soak: &Soak) -> Result<u8, Error> {
    let plan = Plan {
        boots: soak.boots,
        jobs: soak.jobs,
        deadline: Duration::from_secs(soak.deadline),
        shake: soak.shake,
        prepare: soak.prepare.clone(),
        examine: soak.examine.clone(),
    };
    // No boot is of an engine.
    let options = Options { engines: false, ..soak.boot.options() };
    let figures = soak::soak(&plan, &options, &|boot| {
        if boot.end != End::Good {
            println!(
                "boot {}: {:?} after {:.1} s: {}",
                boot.number,
                boot.end,
                boot.took.as_secs_f64(),
                boot.message
            );
        }
        if boot.number % 25 == 0 {
            eprintln!("soak: boot {} of {}", boot.number, plan.boots);
        }
    })?;
    println!("{figures}");
    Ok(u8::from(!figures.flawless()))
}

/// Runs the command on this machine, with the same exit statuses as in a lab.
fn run_here(boot: &Boot, exec: &Exec) -> Result<u8, Error> {
    let missing = || Error::Refused { reason: "no command given".to_owned() };
    let program = exec.command.first().ok_or_else(missing)?;
    let seconds = exec.timeout.to_string();
    // timeout(1) exits with 124 as well, and its 0 is no limit, too.
    let mut command = Command::new("timeout");
    command.arg("--foreground").args(["--kill-after=10", &seconds]).args(&exec.command);
    command.env(PLACE, "kvm");
    for pair in &exec.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        command.env(name, value);
    }
    if let Some(cwd) = &exec.cwd {
        command.current_dir(cwd);
    }
    if let Some(out) = &boot.out {
        std::fs::create_dir_all(out).map_err(|source| Error::System { step: "create --out", source })?;
        command.env(OUT, out);
    }
    let status = command.status().map_err(|source| Error::Spawn { program: program.clone(), source })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(EXIT_LAB))
}

fn shell() -> Exec {
    let tty = io::stdin().is_terminal();
    let command = vec!["bash".to_owned(), "-l".to_owned()];
    Exec { timeout: 0, tty, cwd: None, env: Vec::new(), command }
}

fn execute(dir: &StateDir, exec: &Exec) -> Result<u8, Error> {
    let here = std::env::current_dir()
        .map_err(|source| Error::System { step: "find the current directory", source });
    let terminal = if exec.tty { Some(terminal::size()) } else { None };
    let terminal =
        terminal.transpose().map_err(|source| Error::System { step: "use the terminal", source })?;
    let request = Request {
        argv: exec.command.clone(),
        env: environment(&exec.env),
        cwd: exec.cwd.clone().map_or_else(|| here.map(|here| here.to_string_lossy().into_owned()), Ok)?,
        terminal,
    };
    let raw = if exec.tty { Some(terminal::Raw::stdin()) } else { None };
    let _raw = raw.transpose().map_err(|source| Error::System { step: "make the terminal raw", source })?;
    let within = (exec.timeout > 0).then(|| Duration::from_secs(exec.timeout));
    let output = (&mut io::stdout() as &mut dyn io::Write, &mut io::stderr() as &mut dyn io::Write);
    let exit = client::execute(dir, &request, Input::Stdin, output, within)?;
    Ok(u8::try_from(exit.status() & 0xff).unwrap_or(EXIT_LAB))
}

/// What of the caller's environment matters to a command in the lab, and what was asked for by `--env`.
fn environment(extra: &[String]) -> Vec<(String, String)> {
    const NAMES: [&str; 6] = ["HOME", "PATH", "TERM", "LANG", "USER", "XDG_CACHE_HOME"];
    const PREFIXES: [&str; 4] = ["CARGO_", "RUST", "BULKHEAD_", "LC_"];
    let wanted = |name: &str| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let mut all: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| wanted(name) && name != OUT && name != PLACE)
        .collect();
    all.push((OUT.to_owned(), "/lab/out".to_owned()));
    all.push((PLACE.to_owned(), "lab".to_owned()));
    for pair in extra {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        all.retain(|(known, _)| known != name);
        all.push((name.to_owned(), value.to_owned()));
    }
    all
}

fn complain(error: &Error) {
    let mut line = format!("bulkhead-lab: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("{line}");
    if let Some(hint) = error.hint() {
        eprintln!("  hint: {hint}");
    }
}
