//! The server's end of `bulkhead-vmm`: spawn, requests with their replies, and the news that it is over.
//!
//!   Vmm::call ─mpsc─▶ the task `converse` ◀─packets─▶ bulkhead-vmm
//!                         └─▶ stamps ─▶ timeline      └─ the socket closes ─▶ `Over`
//!
//! One task owns the control socket. Replies come in the order of the requests. When the socket closes, for whatever
//! reason, the VM is over: requests that wait are answered with that, and so is everybody who watches `over`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bulkhead_protocol::{
    packet::{PacketError, PacketSocket},
    vmm::{CONTROL_FD, Event, Failure, GuestExit, Message, Reply, Request},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::packets::Packets;
use crate::state::Process;

/// Requests that may wait for the task.
const QUEUE: usize = 8;

#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum VmmError {
    #[error("start the VMM {}: {reason}", .path.display())]
    Spawn { path: PathBuf, reason: String },
    #[error(transparent)]
    Refused(#[from] Failure),
    #[error(transparent)]
    Over(#[from] Over),
    #[error("the VMM did not answer for {waited:?}")]
    Silent { waited: Duration },
    #[error("the VMM's socket failed: {0}")]
    Socket(String),
}

/// A VM that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Over {
    /// `None`: the VMM died without a word.
    pub reason: Option<GuestExit>,
    pub console_tail: String,
}

impl std::error::Error for Over {}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{reason}")?,
            None => write!(f, "the VMM died")?,
        }
        let tail = self.console_tail.trim_end();
        if tail.is_empty() { Ok(()) } else { write!(f, "; the console ended with:\n{tail}") }
    }
}

/// News that are not replies.
#[derive(Debug)]
pub(super) enum News {
    Started(Process),
    Stamp(bulkhead_protocol::timeline::Stamp),
}

type Answer = oneshot::Sender<Result<Reply, VmmError>>;

struct Call {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: Answer,
}

/// A running VMM. Dropping the last one closes the control socket, which ends it.
#[derive(Debug, Clone)]
pub(super) struct Vmm {
    calls: mpsc::Sender<Call>,
    over: watch::Receiver<Option<Over>>,
}

impl Vmm {
    /// Starts the VMM in a cgroup, with one end of a control socket; `log` takes its standard error. It opens no device:
    /// the cgroup may forbid all of them, so its standard input and output are ours, /dev/null. Of our environment it gets
    /// nothing.
    pub(super) fn spawn(
        path: &Path,
        log: &File,
        cgroup: Option<&Path>,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<(Self, Process), VmmError> {
        let failed = |e: io::Error| VmmError::Spawn { path: path.to_owned(), reason: e.to_string() };
        let (ours, theirs) = PacketSocket::pair().map_err(failed)?;
        let mut command = Command::new(path);
        command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(log.try_clone().map_err(failed)?);
        command.env_clear();
        if let Some(cgroup) = cgroup {
            let procs = File::options().write(true).open(cgroup.join("cgroup.procs")).map_err(failed)?;
            enter(&mut command, procs);
        }
        pass_as(&mut command, theirs.into(), CONTROL_FD);
        let child = command.spawn().map_err(failed)?;
        // The command holds their end; ours must be the only one left, or its closing would go unseen.
        drop(command);
        let process = Process::of(child.id()).map_err(failed)?;
        Ok((Self::over(ours, news).map_err(failed)?, process))
    }

    /// Speaks over a control socket whose other end is a VMM.
    pub(super) fn over(socket: PacketSocket, news: mpsc::UnboundedSender<News>) -> io::Result<Self> {
        let packets = Packets::new(socket)?;
        let (calls, queue) = mpsc::channel(QUEUE);
        let (over_sender, over) = watch::channel(None);
        tokio::spawn(async move {
            let end = converse(&packets, queue, &news).await;
            // The socket closes before anybody hears of it: a VMM that still lives ends now.
            drop(packets);
            over_sender.send_replace(Some(end));
        });
        Ok(Self { calls, over })
    }

    pub(super) async fn call(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
        deadline: Duration,
    ) -> Result<Reply, VmmError> {
        let (answer, reply) = oneshot::channel();
        let asked = async {
            if self.calls.send(Call { request, fds, answer }).await.is_err() {
                return Err(self.wait_over().await.into());
            }
            match reply.await {
                Ok(reply) => reply,
                Err(_) => Err(self.wait_over().await.into()),
            }
        };
        tokio::time::timeout(deadline, asked).await.unwrap_or(Err(VmmError::Silent { waited: deadline }))
    }

    /// When the VM is no more.
    pub(super) async fn wait_over(&self) -> Over {
        let mut over = self.over.clone();
        // A sender that is dropped without a word means that the task itself was dropped: the runtime ends.
        match over.wait_for(Option::is_some).await.map(|over| over.clone()) {
            Ok(Some(over)) => over,
            Ok(None) | Err(_) => Over { reason: None, console_tail: String::new() },
        }
    }
}

/// Moves the child into the cgroup with this `cgroup.procs` before it is the program.
fn enter(command: &mut Command, procs: File) {
    // 0 is the writer itself.
    let enter = move || (&procs).write_all(b"0");
    // SAFETY: the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
}

/// Gives the child `fd` under the number `number`, whatever number it has here.
pub(crate) fn pass_as(command: &mut Command, fd: OwnedFd, number: i32) {
    let pass = move || {
        let fd = fd.as_raw_fd();
        // dup2 clears close-on-exec on the copy; onto itself it does nothing, so the flag is cleared by hand.
        // SAFETY: plain system calls on a descriptor that the closure owns, allowed between fork and exec; `number`
        // is not a descriptor the child needs otherwise, for standard streams are below it and the rest is
        // close-on-exec.
        let done =
            unsafe { if fd == number { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, number) } };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure only makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(pass) };
}

async fn converse(
    packets: &Packets,
    mut queue: mpsc::Receiver<Call>,
    news: &mpsc::UnboundedSender<News>,
) -> Over {
    let mut waiting: VecDeque<Answer> = VecDeque::new();
    let mut over = Over { reason: None, console_tail: String::new() };
    loop {
        let packet = tokio::select! {
            biased;
            packet = packets.receive::<Message>() => packet,
            call = queue.recv() => match call {
                Some(Call { request, fds, answer }) => {
                    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                    match packets.send(&request, &fds).await {
                        Ok(()) => waiting.push_back(answer),
                        // A VMM that is gone has left its reason in the socket: it is read next.
                        Err(PacketError::Send { .. } | PacketError::Closed) => drop(answer),
                        Err(error) => drop(answer.send(Err(VmmError::Socket(error.to_string())))),
                    }
                    continue;
                }
                // Nobody is left who could ask for anything.
                None => return over,
            },
        };
        match packet.map(|(message, _fds)| message) {
            Ok(Message::Reply(reply)) => {
                // A reply that nobody waits for is the VMM's mistake, and harmless.
                if let Some(answer) = waiting.pop_front() {
                    let _ = answer.send(reply.map_err(VmmError::from));
                }
            }
            Ok(Message::Event(Event::Started { pid })) => {
                if let Ok(process) = Process::of(pid) {
                    let _ = news.send(News::Started(process));
                }
            }
            Ok(Message::Event(Event::Stamp(stamp))) => drop(news.send(News::Stamp(stamp))),
            Ok(Message::Event(Event::Exited { reason, console_tail })) => {
                over = Over { reason: Some(reason), console_tail };
            }
            Err(PacketError::Closed) => return over,
            Err(error) => {
                // Not our protocol any more: a VMM that was taken over. Closing the socket ends it.
                over.reason.get_or_insert_with(|| GuestExit::Vmm(format!("it sent nonsense: {error}")));
                return over;
            }
        }
    }
}

#[cfg(test)]
mod tests;
