//! The control socket: one request at a time, and what the machine says in between.
//!
//!   server ──Request──▶ `Control::answer` ──▶ machine ──▶ Reply
//!   vCPU thread ──Outcome──▶ eventfd ──▶ `Control::serve` ──▶ Event::Exited, the process ends
//!
//! One thread, the main one, owns the machine and waits on the socket and the eventfd. A closed socket ends the
//! process at once. No send blocks longer than `SEND`: a server that does not read has given up its VM.

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Duration,
};

use bulkhead_protocol::{
    packet::{PacketError, PacketSocket},
    timeline::Stamp,
    vmm::{Event, Failure, FailureKind, GuestExit, Message, Reply, Request},
};
use bulkhead_sys::chain;
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::sockopt::{Timeout, set_socket_timeout},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{
    event_loop::borrow,
    fds::Fds,
    jail::Inner,
    log,
    machine::{CheckedConfig, Machine, MachineError},
    vcpu::{Outcome, Reporter},
};

const SEND: Duration = Duration::from_secs(5);
/// For the first vCPU thread to be scheduled.
const ENTER: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("use the control socket")]
    Socket(#[from] PacketError),
    #[error("set up the control socket")]
    Setup { source: io::Error },
    #[error("wait for a request")]
    Wait { source: io::Error },
}

/// What there is to control.
#[derive(Debug)]
enum State {
    /// Waiting for `Boot`; `None` when a boot has failed.
    Jailed(Option<Inner>),
    Running(Box<Machine>),
}

#[derive(Debug)]
pub struct Control {
    socket: PacketSocket,
    state: State,
    outcomes: Receiver<Outcome>,
    reporter: Reporter,
    wake: Arc<EventFd>,
}

impl Control {
    /// Serves nothing before `serve`.
    ///
    /// # Errors
    /// The socket takes no timeout, or there is no descriptor for an event.
    pub fn new(socket: PacketSocket, jail: Inner) -> Result<Self, ControlError> {
        let setup = |source| ControlError::Setup { source };
        set_socket_timeout(&socket, Timeout::Send, Some(SEND)).map_err(|errno| setup(errno.into()))?;
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(setup)?);
        let (sender, outcomes) = channel();
        let reporter = Reporter::new(sender, Arc::clone(&wake));
        Ok(Self { socket, state: State::Jailed(Some(jail)), outcomes, reporter, wake })
    }

    /// Serves until the VM is over or the server is gone.
    ///
    /// # Errors
    /// The socket or the wait failed: the server is out of reach.
    pub fn serve(mut self) -> Result<ExitCode, ControlError> {
        loop {
            let (request, woken) = self.wait()?;
            if woken {
                let _ = self.wake.read();
                if let Some(exit) = self.exited() {
                    return self.finish(exit);
                }
            }
            if !request {
                continue;
            }
            match self.socket.receive() {
                Ok((request, fds)) => {
                    if let Some(exit) = self.answer(request, Fds::new(fds))? {
                        return self.finish(exit);
                    }
                }
                Err(error @ (PacketError::Message { .. } | PacketError::Truncated)) => {
                    self.refuse(FailureKind::Invalid, &error)?;
                }
                Err(PacketError::Closed) => return Ok(ExitCode::SUCCESS),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for a packet, an outcome, or both.
    fn wait(&self) -> Result<(bool, bool), ControlError> {
        let mut fds = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(&self.wake), PollFlags::IN),
        ];
        loop {
            match poll(&mut fds, None) {
                Ok(_) => {
                    let [socket, wake] = fds.map(|fd| !fd.revents().is_empty());
                    return Ok((socket, wake));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(ControlError::Wait { source: errno.into() }),
            }
        }
    }

    /// The whole protocol on one screen. `Some` when the request ends the VM.
    fn answer(&mut self, request: Request, fds: Fds) -> Result<Option<GuestExit>, ControlError> {
        match (request, &mut self.state) {
            (Request::Boot(config), State::Jailed(jail)) => {
                let jail = jail.take();
                match CheckedConfig::check(*config, fds) {
                    Ok(config) => self.boot(config, jail)?,
                    // Nothing has been done yet: a better request may follow.
                    Err(error) => {
                        self.state = State::Jailed(jail);
                        self.refuse(FailureKind::Invalid, &error)?;
                    }
                }
            }
            (Request::Plug { slot, device }, State::Running(machine)) => {
                let mut fds = fds;
                let plugged = machine.plug(slot, device, &mut fds);
                self.done(plugged)?;
            }
            (Request::Unplug { slot }, State::Running(machine)) => {
                let unplugged = machine.unplug(slot);
                self.done(unplugged)?;
            }
            (Request::ResizeMemory { mib }, State::Running(machine)) => {
                let resized = machine.resize_memory(mib);
                self.done(resized)?;
            }
            (Request::Nudge, State::Running(machine)) => {
                machine.nudge();
                self.reply(Ok(Reply::Done))?;
            }
            (Request::Revoke { directory }, State::Running(machine)) => {
                machine.revoke(&directory);
                self.reply(Ok(Reply::Done))?;
            }
            (Request::Metrics, State::Running(machine)) => {
                let metrics = machine.metrics();
                self.reply(Ok(Reply::Metrics(metrics)))?;
            }
            (Request::Stop, State::Running(_) | State::Jailed(_)) => {
                self.reply(Ok(Reply::Done))?;
                return Ok(Some(GuestExit::Stopped));
            }
            (Request::Boot(_), State::Running(_)) => self.not_now("the machine is booted already")?,
            (
                Request::Plug { .. }
                | Request::Unplug { .. }
                | Request::ResizeMemory { .. }
                | Request::Nudge
                | Request::Revoke { .. }
                | Request::Metrics,
                State::Jailed(_),
            ) => self.not_now("the machine is not booted")?,
        }
        Ok(None)
    }

    fn boot(&mut self, config: CheckedConfig, jail: Option<Inner>) -> Result<(), ControlError> {
        let Some(jail) = jail else {
            return self.not_now("an earlier boot has failed, and a VMM boots only once");
        };
        let mut unsent = Ok(());
        let socket = &self.socket;
        let booted = Machine::boot(config, jail, &self.reporter, |stamp| {
            let sent = socket.send(&Message::Event(Event::Stamp(stamp)), &[]);
            unsent = std::mem::replace(&mut unsent, Ok(())).and(sent);
        });
        unsent?;
        match booted {
            Ok(machine) => {
                self.state = State::Running(Box::new(machine));
                if let Some(stamp) = self.entered() {
                    self.send(&Message::Event(Event::Stamp(stamp)))?;
                }
                self.reply(Ok(Reply::Booted))
            }
            Err(error) => self.refuse(error.kind(), &error),
        }
    }

    /// The first vCPU's first outcome. An exit cannot come before it: it is the same thread that sends both.
    fn entered(&self) -> Option<Stamp> {
        match self.outcomes.recv_timeout(ENTER) {
            Ok(Outcome::Entered(stamp)) => Some(stamp),
            // Another vCPU failed first: `serve` finds nothing more, so report it again.
            Ok(exited @ Outcome::Exited(_)) => {
                self.reporter.report(exited);
                None
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    fn exited(&self) -> Option<GuestExit> {
        self.outcomes.try_iter().find_map(|outcome| match outcome {
            Outcome::Exited(exit) => Some(exit),
            Outcome::Entered(_) => None,
        })
    }

    /// Reports the end. The caller ends the process, and with it all threads, whatever they wait for.
    fn finish(&self, exit: GuestExit) -> Result<ExitCode, ControlError> {
        let (reason, console_tail) = match &self.state {
            State::Running(machine) => {
                let console = machine.console();
                let reason = match exit {
                    GuestExit::Reset | GuestExit::TripleFault(_) if console.panicked() => GuestExit::Panic,
                    other => other,
                };
                (reason, console.tail())
            }
            State::Jailed(_) => (exit, String::new()),
        };
        if !matches!(reason, GuestExit::Stopped | GuestExit::Reset) {
            log::line(&reason);
        }
        self.send(&Message::Event(Event::Exited { reason, console_tail }))?;
        Ok(ExitCode::SUCCESS)
    }

    fn done(&self, result: Result<(), MachineError>) -> Result<(), ControlError> {
        match result {
            Ok(()) => self.reply(Ok(Reply::Done)),
            Err(error) => self.refuse(error.kind(), &error),
        }
    }

    fn not_now(&self, why: &str) -> Result<(), ControlError> {
        self.reply(Err(Failure { kind: FailureKind::Invalid, message: why.into() }))
    }

    fn refuse(&self, kind: FailureKind, error: &dyn std::error::Error) -> Result<(), ControlError> {
        self.reply(Err(Failure { kind, message: chain(error) }))
    }

    fn reply(&self, reply: Result<Reply, Failure>) -> Result<(), ControlError> {
        self.send(&Message::Reply(reply))
    }

    fn send(&self, message: &Message) -> Result<(), ControlError> {
        Ok(self.socket.send(message, &[])?)
    }
}

/// Tells the server that the jail's first half failed; it stands for the reply to a boot request.
///
/// # Errors
/// The server does not take the packet.
pub fn refuse_boot(socket: &PacketSocket, error: &crate::jail::JailError) -> Result<(), PacketError> {
    let failure = Failure { kind: FailureKind::Jail, message: chain(error) };
    socket.send(&Message::Reply(Err(failure)), &[])
}

#[cfg(test)]
mod tests;
