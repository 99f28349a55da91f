//! The server's end of `bulkhead-vmm`: spawn, requests with their replies, and the news that it is over.
//!
//!   Vmm::call ─mpsc─▶ the task `converse` ◀─packets─▶ bulkhead-vmm
//!                         └─▶ stamps ─▶ timeline      └─ the socket closes ─▶ `Over`
//!
//! One task owns the control socket. `conversation` says what may come over it; a VMM that says anything else is ended. When
//! the socket closes, for whatever reason, the VM is over: requests that wait are answered with that, and so is everybody
//! who watches `over`.

mod conversation;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
pub(crate) mod processes;

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bulkhead_protocol::{
    packet::{PacketError, PacketSocket},
    timeline::Stamp,
    vmm::{CONTROL_FD, Failure, GuestExit, Message, Reply, Request},
};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::{
    conversation::{Answer, Conversation, Heard, Violation, Wanted},
    processes::Processes,
};
use super::packets::Packets;
use crate::log::note_bytes;

/// Requests that may wait for the task.
const QUEUE: usize = 8;
/// Bytes that are taken from a VMM's standard error at once.
const CHUNK: usize = 16 << 10;
/// For a VMM that is told to end to say what the console said last.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum VmmError {
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
pub(crate) struct Over {
    pub reason: Reason,
    pub console_tail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error(transparent)]
    Exited(GuestExit),
    /// Without a word.
    #[error("the VMM died")]
    Died,
    #[error("the VMM broke the protocol: {0}")]
    Violated(#[from] Violation),
    /// Ended by the server, which says why.
    #[error("{0}")]
    Ended(String),
}

impl Over {
    /// What there is to say of one that says nothing.
    pub(crate) fn died() -> Self {
        Self { reason: Reason::Died, console_tail: String::new() }
    }
}

impl std::error::Error for Over {}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.reason)?;
        let tail = self.console_tail.trim_end();
        if tail.is_empty() { Ok(()) } else { write!(f, "; the console ended with:\n{tail}") }
    }
}

struct Call {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: Answer,
}

/// A running VMM. Dropping the last one closes the control socket, which ends it.
#[derive(Debug, Clone)]
pub(crate) struct Vmm {
    calls: mpsc::Sender<Call>,
    started: watch::Receiver<Option<Result<u32, Failure>>>,
    over: watch::Receiver<Option<Over>>,
    force: Arc<Force>,
}

/// How the server ends a VMM that does not end by itself.
#[derive(Debug, Default)]
struct Force {
    /// The first reason counts.
    why: OnceLock<String>,
    /// Not to be waited for any longer.
    now: Notify,
}

/// A VMM that was just started.
pub(crate) struct Spawned {
    pub(crate) vmm: Vmm,
    pub(crate) processes: Processes,
    pub(crate) stamps: Stamps,
    /// Ends with the last process of the VMM.
    pub(crate) stderr: JoinHandle<()>,
}

/// What a VMM has to tell while it boots, beside its replies: at most `conversation::PHASES`.
pub(crate) type Stamps = mpsc::Receiver<Stamp>;

impl Vmm {
    /// Starts the VMM in a cgroup, with one end of a control socket. It opens no device: the cgroup may forbid all of them,
    /// so its standard input and output are ours, /dev/null. Its standard error goes into the server's notes. Of our
    /// environment it gets nothing.
    pub(crate) fn spawn(path: &Path, cgroup: Option<&Path>) -> Result<Spawned, VmmError> {
        let failed = |e: io::Error| VmmError::Spawn { path: path.to_owned(), reason: e.to_string() };
        let (ours, theirs) = PacketSocket::pair().map_err(failed)?;
        let (said, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let said = pipe::Receiver::from_owned_fd(said).map_err(failed)?;
        let mut command = Command::new(path);
        command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(stderr);
        command.env_clear();
        if let Some(cgroup) = cgroup {
            let procs = File::options().write(true).open(cgroup.join("cgroup.procs")).map_err(failed)?;
            enter(&mut command, procs);
        }
        pass_as(&mut command, theirs.into(), CONTROL_FD);
        let child = command.spawn().map_err(failed)?;
        // The command holds their ends; ours must be the only ones left, or their closing would go unseen.
        drop(command);
        let processes = Processes::of(child.id()).map_err(failed)?;
        let (vmm, stamps) = Self::over(ours).map_err(failed)?;
        Ok(Spawned { vmm, processes, stamps, stderr: tokio::spawn(listen(said)) })
    }

    /// Speaks over a control socket whose other end is a VMM that has just started.
    pub(crate) fn over(socket: PacketSocket) -> io::Result<(Self, Stamps)> {
        let packets = Packets::new(socket)?;
        let (calls, queue) = mpsc::channel(QUEUE);
        let (over_sender, over) = watch::channel(None);
        let (started_sender, started) = watch::channel(None);
        // Each comes once, so there is always room.
        let (stamps_sender, stamps) = mpsc::channel(conversation::PHASES.len());
        let force = Arc::new(Force::default());
        let forced = Arc::clone(&force);
        tokio::spawn(async move {
            let told = Told { started: started_sender, stamps: stamps_sender };
            let mut end = tokio::select! {
                biased;
                end = converse(&packets, queue, &told) => end,
                () = forced.now.notified() => Over::died(),
            };
            if let Some(why) = forced.why.get() {
                end.reason = Reason::Ended(why.clone());
            }
            // The socket closes before anybody hears of it: a VMM that still lives ends now.
            drop(packets);
            over_sender.send_replace(Some(end));
        });
        Ok((Self { calls, started, over, force }, stamps))
    }

    /// The pid of its jailed process, as it tells it before it takes requests.
    pub(crate) async fn started(&self, deadline: Duration) -> Result<u32, VmmError> {
        let mut started = self.started.clone();
        let told = async {
            match started.wait_for(Option::is_some).await.map(|told| told.clone()) {
                Ok(Some(told)) => Ok(told?),
                Ok(None) | Err(_) => Err(self.wait_over().await.into()),
            }
        };
        tokio::time::timeout(deadline, told).await.unwrap_or(Err(VmmError::Silent { waited: deadline }))
    }

    pub(crate) async fn call(
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

    /// Ends the VM for a reason of the server's, which is that of its end. One that does not end when it is told to is not
    /// waited for: whoever watches `over` kills it.
    pub(crate) async fn end(&self, why: String) {
        let _ = self.force.why.set(why);
        let told = async {
            let _ = self.call(Request::Stop, Vec::new(), LAST_WORDS).await;
            self.wait_over().await
        };
        if tokio::time::timeout(LAST_WORDS, told).await.is_err() {
            self.force.now.notify_one();
            self.wait_over().await;
        }
    }

    /// When the VM is no more.
    pub(crate) async fn wait_over(&self) -> Over {
        let mut over = self.over.clone();
        // A sender that is dropped without a word means that the task itself was dropped: the runtime ends.
        match over.wait_for(Option::is_some).await.map(|over| over.clone()) {
            Ok(Some(over)) => over,
            Ok(None) | Err(_) => Over::died(),
        }
    }
}

/// Takes all that a VMM says on its standard error: it is never kept waiting, and what it says is bounded where it goes.
async fn listen(mut said: pipe::Receiver) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(count @ 1..) = said.read(&mut bytes).await {
        note_bytes(&bytes[..count]);
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

/// Where the task leaves what it hears.
struct Told {
    started: watch::Sender<Option<Result<u32, Failure>>>,
    stamps: mpsc::Sender<Stamp>,
}

async fn converse(packets: &Packets, mut queue: mpsc::Receiver<Call>, told: &Told) -> Over {
    let mut conversation = Conversation::new();
    let mut over = Over::died();
    loop {
        let packet = tokio::select! {
            biased;
            packet = packets.receive::<Message>() => packet,
            call = queue.recv() => match call {
                Some(Call { request, fds, answer }) => {
                    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                    match packets.send(&request, &fds).await {
                        Ok(()) => conversation.asked(Wanted::by(&request), answer),
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
        let heard = match packet {
            Ok((message, _fds)) => conversation.hear(message),
            Err(PacketError::Closed) => return over,
            Err(error) => Err(Violation::Nonsense(error.to_string())),
        };
        match heard {
            Ok(Heard::Started(pid)) => drop(told.started.send_replace(Some(Ok(pid)))),
            Ok(Heard::NotJailed(failure)) => drop(told.started.send_replace(Some(Err(failure)))),
            Ok(Heard::Stamp(stamp)) => drop(told.stamps.try_send(stamp)),
            Ok(Heard::Reply(answer, reply)) => drop(answer.send(reply.map_err(VmmError::from))),
            Ok(Heard::Exited(exited)) => over = exited,
            // A VMM that was taken over. Closing the socket ends it.
            Err(violation) => return Over { reason: violation.into(), ..over },
        }
    }
}

#[cfg(test)]
mod tests;
