//! `bulkhead run`: create and start; in the foreground, wait, delete, and exit as the container did.

use std::{
    fs,
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
    path::PathBuf,
};

use bulkhead_protocol::timeline::Stamp;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    Context,
    create::{Created, Flags, Mode},
    start,
};
use crate::{
    api::{
        container::{Container, RequestError},
        removal::{self, stopping},
    },
    error::Error,
    log::note,
    proxy::{FORWARDED, RawMode},
    store::{StateDir, names, read_json},
};

/// Create and start a container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// Keep the container when its program has ended
    #[arg(long)]
    keep: bool,
    /// Accepted; what the container leaves behind stays in its microVM
    #[arg(long)]
    no_subreaper: bool,
    /// At the end, write a table of the phases of the start to this file (`-`: standard error)
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let mode = if self.detach { Mode::Detached } else { Mode::Foreground };
        let mut created = Created::make(context, &self.flags, mode)?;
        let container = Container::open(&context.root, &created.id)?;
        // Blocked, a signal waits for `wait` below, and goes to the container.
        let signals = if self.detach { None } else { Some(Signals::block()?) };
        let raw = match created.terminal && !self.detach {
            true => {
                Some(RawMode::enter(std::io::stdin()).map_err(|e| Error::io("make the terminal raw", e))?)
            }
            false => None,
        };
        if let Err(error) = start::start(&container).and_then(|()| start::poststart(&container)) {
            drop(raw);
            let _ = container.kill(libc::SIGKILL.unsigned_abs(), true);
            if let Err(left) = remove(context, &container) {
                context.log.warn(&format!("delete: {}", bulkhead_sys::chain(&left)));
            }
            return Err(error.during(format!("start {}", created.id)));
        }
        let Some(signals) = signals else { return Ok(0) };
        let code = signals.wait(&mut created)?;
        drop(raw);
        let id = created.id.clone();
        // The server ends by itself; with it the last phase is known.
        let gone = container.wait_gone(stopping(&container.record));
        if let Some(server) = created.creation.launched() {
            server.reap();
        }
        if let Some(path) = &self.timeline {
            print_timeline(path, &container)?;
        }
        if !self.keep {
            gone?;
            remove(context, &container).map_err(|e| Error::from(e).during(format!("delete {id}")))?;
        }
        Ok(code)
    }
}

fn print_timeline(path: &PathBuf, container: &Container) -> Result<(), Error> {
    let stamps: Option<Vec<Stamp>> = match &container.sandbox {
        Some(sandbox) => read_json(&sandbox.dir.join(names::TIMELINE))?,
        None => None,
    };
    let table = timeline_table(&stamps.unwrap_or_default());
    if path.as_os_str() == "-" {
        note(table.trim_end());
        return Ok(());
    }
    fs::write(path, table).map_err(|e| Error::io(format!("write {}", path.display()), e))
}

fn remove(context: &Context, container: &Container) -> Result<(), RequestError> {
    let dir = StateDir::open(&context.root, container.dir.id())?;
    removal::remove(&context.root, dir, &context.log)
}

/// Phase, and milliseconds since the command was entered and since the phase before.
fn timeline_table(stamps: &[Stamp]) -> String {
    let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
    let mut table = format!("{:<20}{:>12}{:>12}\n", "phase", "ms", "step ms");
    let first = stamps.first().map_or(0, |stamp| stamp.monotonic_ns);
    let mut before = first;
    for stamp in stamps {
        let (since, step) = (ms(first, stamp.monotonic_ns), ms(before, stamp.monotonic_ns));
        table.push_str(&format!("{:<20}{since:>12.1}{step:>12.1}\n", stamp.phase.name()));
        before = stamp.monotonic_ns;
    }
    table
}

/// The signals of a command that waits in the foreground.
struct Signals(SignalFd);

impl Signals {
    fn block() -> Result<Self, Error> {
        let failed = |e: Errno| Error::io("take signals", e.into());
        let mut set = SigSet::empty();
        for number in FORWARDED {
            set.add(Signal::try_from(number).map_err(failed)?);
        }
        set.thread_block().map_err(failed)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).map_err(failed)
    }

    /// Waits for the proxy's end; signals sent to this command go to the container.
    fn wait(&self, created: &mut Created) -> Result<u8, Error> {
        let failed = |e: std::io::Error| Error::io("wait for the container", e);
        let pidfd = created.proxy.process.pidfd().map_err(failed)?;
        loop {
            if let Some(status) = created.proxy.try_wait().map_err(failed)? {
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
            }
            let mut fds = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            fds.extend(pidfd.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            // The timeout is for a proxy that ended before its descriptor was opened.
            let timeout = PollTimeout::from(if pidfd.is_some() { 1000_u16 } else { 10 });
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            while let Ok(Some(info)) = self.0.read_signal() {
                // What the terminal sends goes to the whole foreground group: the proxy has it already.
                if info.ssi_code != libc::SI_KERNEL
                    && let Some(pid) = i32::try_from(created.proxy.process.pid).ok()
                    && let Ok(signal) = i32::try_from(info.ssi_signo)
                {
                    let signal = Signal::try_from(signal).ok();
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
