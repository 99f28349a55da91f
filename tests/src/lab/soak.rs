//! Boots many microVMs in a lab and counts how they end: what a lab's emulation is worth, and which variant is best.
//!
//! ```text
//!  soak ─▶ lab ─▶ jobs side by side, each: bulkhead run of /bin/true ─▶ End ─▶ Figures
//!            └ a lab that dies, or answers nothing any more, is counted and replaced
//! ```
//!
//! One boot is the whole of `bulkhead run`: a server, a VMM, a guest kernel, the agent, a container. Whatever keeps it
//! from ending with status 0 is a failure, and its message is kept.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{self, Input, Lab, Options};
use super::places::{self, StateDir};
use super::wire::{Exit, Request};
use super::{Error, tail};

/// How long a lab may take to answer when all it is asked is whether it is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Labs that may fail to come up in a row before there must be another reason than chance.
const LABS_IN_VAIN: u32 = 3;
/// What `bulkhead run` says when KVM reports a triple fault of the guest.
const RESET: &str = "the guest reset itself";
/// Makes the bundle that all boots share: busybox as `/bin/true`.
const BUNDLE: &str = r#"
set -e
mkdir -p /run/soak/rootfs/bin
cp "$(command -v busybox)" /run/soak/rootfs/bin/true
cd /run/soak
"$BULKHEAD_STAGE/bin/bulkhead" spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"$/"\/bin\/true"/' config.json
"#;

/// Starts the load of `guest::shake`, which goes on.
const SHAKE: &str = "/lab/bin/bulkhead-lab guest-shake </dev/null >/dev/null 2>&1 &";

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// microVMs to boot.
    pub boots: u32,
    /// How many at a time.
    pub jobs: u32,
    /// How long one may take before it counts as silent.
    pub deadline: Duration,
    /// Makes the lab's processors stand still all the time, which brings faults of the emulation out.
    pub shake: bool,
    /// A shell command that each lab runs first.
    pub prepare: Option<String>,
    /// A shell command that a lab runs after each failure; what it prints is kept with the failure's message.
    pub examine: Option<String>,
}

/// How one boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Good,
    /// The guest reset itself.
    Reset,
    /// Nothing came until the deadline.
    Silent,
    /// `bulkhead run` failed for any other reason.
    Died,
    /// The lab died, or no longer answers.
    Lab,
    /// The lab that it ran in had died already.
    WithLab,
}

/// One boot.
#[derive(Debug, Clone)]
pub struct Boot {
    pub number: u32,
    pub end: End,
    pub took: Duration,
    /// What there is to say about a failure.
    pub message: String,
}

/// How many boots ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    pub good: u32,
    pub resets: u32,
    pub silent: u32,
    pub died: u32,
    /// Labs that died; the boots that died with them count nowhere else.
    pub labs: u32,
    /// What the good boots took.
    times: Vec<Duration>,
}

impl Figures {
    fn add(&mut self, boot: &Boot) {
        match boot.end {
            End::Good => {
                self.good += 1;
                self.times.push(boot.took);
            }
            End::Reset => self.resets += 1,
            End::Silent => self.silent += 1,
            End::Died => self.died += 1,
            End::Lab => self.labs += 1,
            End::WithLab => {}
        }
    }

    /// Whether every boot was good.
    #[must_use]
    pub fn flawless(&self) -> bool {
        self.resets + self.silent + self.died + self.labs == 0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let boots = self.good + self.resets + self.silent + self.died;
        write!(
            f,
            "{boots} boots: {} good, {} reset, {} silent, {} died; labs that died: {}",
            self.good, self.resets, self.silent, self.died, self.labs
        )?;
        let mut times = self.times.clone();
        times.sort();
        match times.get(times.len() / 2) {
            Some(median) => write!(f, "; median {:.1} s a boot", median.as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// Runs the plan; `each` hears of every boot as it ends.
///
/// # Errors
/// Several labs in a row do not come up, or cannot be prepared.
pub fn soak(plan: &Plan, options: &Options, each: &(dyn Fn(&Boot) + Sync)) -> Result<Figures, Error> {
    let figures = Mutex::new(Figures::default());
    let heard = |boot: &Boot| {
        each(boot);
        if let Ok(mut figures) = figures.lock() {
            figures.add(boot);
        }
    };
    let started = AtomicU32::new(0);
    let mut in_vain = 0;
    while started.load(Ordering::Relaxed) < plan.boots {
        let began = Instant::now();
        match in_one_lab(plan, options, &started, &heard) {
            Ok(()) => in_vain = 0,
            Err(error) if in_vain == LABS_IN_VAIN => return Err(error),
            Err(error) => {
                in_vain += 1;
                let number = started.load(Ordering::Relaxed);
                let took = began.elapsed();
                heard(&Boot { number, end: End::Lab, took, message: error.to_string() });
            }
        }
    }
    Ok(figures.into_inner().unwrap_or_default())
}

/// Boots in a lab of its own until all are booted or the lab is broken.
fn in_one_lab(
    plan: &Plan,
    options: &Options,
    started: &AtomicU32,
    heard: &(dyn Fn(&Boot) + Sync),
) -> Result<(), Error> {
    // On this thread, which outlives it: a lab ends with the thread that started it.
    let lab = Lab::start(options)?;
    let environment = environment();
    let session = Session { dir: lab.dir(), plan, environment: &environment, broken: AtomicBool::new(false) };
    session.prepare()?;
    thread::scope(|scope| {
        for _ in 0..plan.jobs {
            scope.spawn(|| {
                while let Some(number) = session.next(started) {
                    heard(&session.boot(number));
                }
            });
        }
    });
    Ok(())
}

/// One lab and what is done in it.
struct Session<'a> {
    dir: &'a StateDir,
    plan: &'a Plan,
    environment: &'a [(String, String)],
    /// The lab is of no more use.
    broken: AtomicBool,
}

impl Session<'_> {
    /// Takes the next boot's number, counted from 1, unless this was the last or the lab is broken.
    fn next(&self, started: &AtomicU32) -> Option<u32> {
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        let more = |number| (number < self.plan.boots).then_some(number + 1);
        started.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|before| before + 1)
    }

    fn prepare(&self) -> Result<(), Error> {
        let shake = self.plan.shake.then_some(SHAKE);
        for script in [Some(BUNDLE), shake, self.plan.prepare.as_deref()].into_iter().flatten() {
            let ran = self.shell(script, self.plan.deadline)?;
            if ran.exit != Exit::Code(0) {
                let status = ran.exit.status().to_string();
                return Err(Error::Tool {
                    command: "the soak's preparation".into(),
                    status,
                    output: ran.said,
                });
            }
        }
        Ok(())
    }

    fn boot(&self, number: u32) -> Boot {
        let began = Instant::now();
        let run =
            format!(r#"exec "$BULKHEAD_STAGE/bin/bulkhead" run --bundle /run/soak soak-{number} </dev/null"#);
        let ran = self.shell(&run, self.plan.deadline);
        let took = began.elapsed();
        let (mut end, mut message) = judge(ran);
        if end != End::Good && end != End::Lab {
            message.push_str(&self.examine());
            // What it leaves must not disturb the others; a guest that resets leaves nothing.
            let delete = format!(r#""$BULKHEAD_STAGE/bin/bulkhead" delete --force soak-{number}"#);
            if self.shell(&delete, ANSWERS_WITHIN).is_err() {
                message.push_str("\nthe lab does not answer any more");
                end = End::Lab;
            }
        }
        if end == End::Lab {
            message.push_str(&format!("\nits console ended with:\n{}", tail(&self.dir.console(), 40)));
            if self.broken.swap(true, Ordering::Relaxed) {
                end = End::WithLab;
            }
        }
        Boot { number, end, took, message }
    }

    fn examine(&self) -> String {
        let Some(script) = &self.plan.examine else { return String::new() };
        match self.shell(script, ANSWERS_WITHIN) {
            Ok(ran) => format!("\n{}", ran.said),
            Err(error) => format!("\nexamine: {error}"),
        }
    }

    fn shell(&self, script: &str, within: Duration) -> Result<Ran, Error> {
        let mut said = Vec::new();
        let mut complained = Vec::new();
        let request = Request {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: self.environment.to_vec(),
            cwd: "/".to_owned(),
            terminal: None,
        };
        let output = (&mut said as &mut dyn std::io::Write, &mut complained as &mut dyn std::io::Write);
        let exit = client::execute(self.dir, &request, Input::Nothing, output, Some(within))?;
        said.extend(complained);
        Ok(Ran { exit, said: String::from_utf8_lossy(&said).trim().to_owned() })
    }
}

struct Ran {
    exit: Exit,
    said: String,
}

/// What the end of `bulkhead run` means.
fn judge(ran: Result<Ran, Error>) -> (End, String) {
    match ran {
        Ok(Ran { exit: Exit::Code(0), .. }) => (End::Good, String::new()),
        Ok(Ran { said, .. }) if said.contains(RESET) => (End::Reset, said),
        Ok(Ran { exit, said }) => (End::Died, format!("exit status {}: {said}", exit.status())),
        Err(error @ Error::Deadline { .. }) => (End::Silent, error.to_string()),
        Err(error) => (End::Lab, error.to_string()),
    }
}

/// The environment of what runs in the lab.
fn environment() -> Vec<(String, String)> {
    let stage = places::stage().to_string_lossy().into_owned();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    [("PATH", path), ("HOME", "/root"), ("BULKHEAD_STAGE", &stage)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

#[cfg(test)]
#[path = "soak_tests.rs"]
mod tests;
