//! From a VMM that waits for orders to an agent that takes calls.
//!
//!   Boot(machine) + fds ─▶ VMM ─▶ guest kernel ─▶ agent ─greeting line─▶ the server's end of a socketpair ─▶ Agent
//!
//! Nobody polls: the guest connects to a descriptor that the server holds already. One deadline covers all of it, and
//! whichever of reply, greeting and the VM's end comes first decides.

use std::{io, os::fd::OwnedFd, path::PathBuf, time::Duration};

use bulkhead_protocol::{
    greeting::{Greeting, GreetingError},
    limits, ports,
    timeline::Phase,
    vmm::{Device, Fd, GuestPort, HugePages, MachineConfig, Reply, Request},
};
use rustix::fs::{Mode, OFlags};
use tokio::{io::AsyncReadExt as _, net::UnixStream, time::Instant};

use super::{
    agent::Agent,
    sizing::{BOOT_VCPUS, Sizes},
    slots::{BALLOON, CONSOLE, FS, RNG, VSOCK},
    timeline::Timeline,
    vmm::{Over, Vmm, VmmError, processes::AdoptError},
};
use crate::store::StateError;

const KVM: &str = "/dev/kvm";
/// The tag that the agent mounts.
const SHARE_TAG: &str = "share";

#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("open {}", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("make the agent's socket")]
    Socket { source: io::Error },
    #[error(transparent)]
    Vmm(#[from] VmmError),
    #[error(transparent)]
    Over(#[from] Over),
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error("name the VMM's process in the journal")]
    Journal { source: StateError },
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    #[error("guest agent silent for {waited:?}; {end}")]
    AgentSilent { waited: Duration, end: Over },
}

impl BootError {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("add the caller to group kvm")
            }
            Self::Open { .. } => Some("enable virtualization in firmware, then load kvm_intel or kvm_amd"),
            Self::Greeting(GreetingError::Protocol { .. }) => {
                Some("install the guest image of the same release as the runtime")
            }
            Self::Vmm(_) | Self::Over(_) | Self::AgentSilent { .. } => {
                Some("`bulkhead doctor` checks whether this machine can run microVMs")
            }
            Self::Socket { .. } | Self::Adopt(_) | Self::Journal { .. } | Self::Greeting(_) => None,
        }
    }
}

/// What a machine is made from.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) kernel: OwnedFd,
    pub(crate) initramfs: OwnedFd,
    pub(crate) share: OwnedFd,
    pub(crate) vsock_listener: OwnedFd,
    pub(crate) sizes: Sizes,
    pub(crate) debug_console: bool,
    pub(crate) huge_pages: HugePages,
    pub(crate) strip_setuid: bool,
    pub(crate) exclusive_rootfs: bool,
    pub(crate) stable_tsc: bool,
}

/// # Errors
/// With the console's tail, when the guest was to blame. The VM may still run then.
pub(crate) async fn boot(vmm: &Vmm, inputs: Inputs, timeline: &Timeline) -> Result<Agent, BootError> {
    let path = PathBuf::from(KVM);
    let kvm = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| BootError::Open { path, source: errno.into() })?;
    boot_on(vmm, kvm, inputs, timeline, limits::BOOT).await
}

pub(crate) async fn boot_on(
    vmm: &Vmm,
    kvm: OwnedFd,
    inputs: Inputs,
    timeline: &Timeline,
    patience: Duration,
) -> Result<Agent, BootError> {
    let socket = |source| BootError::Socket { source };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(socket)?;
    ours.set_nonblocking(true).map_err(socket)?;
    let mut stream = UnixStream::from_std(ours).map_err(socket)?;
    let (machine, fds) = machine(kvm, theirs.into(), inputs);
    let deadline = Instant::now() + patience;
    let booted = async {
        match vmm.call(Request::Boot(Box::new(machine)), fds, patience).await? {
            Reply::Booted => Ok(()),
            other => Err(BootError::Vmm(VmmError::Socket(format!("it answers Boot with {other:?}")))),
        }
    };
    let greeted = greeting(&mut stream);
    let up = async {
        tokio::pin!(booted, greeted);
        tokio::select! {
            biased;
            reply = &mut booted => {
                reply?;
                greeted.await
            }
            greeted = &mut greeted => match greeted {
                // A stream that ends is the effect of a boot that failed; the reply says why.
                Err(BootError::Socket { source }) => {
                    booted.await?;
                    Err(BootError::Socket { source })
                }
                greeted => {
                    let greeting = greeted?;
                    booted.await.map(|()| greeting)
                }
            },
        }
    };
    let silent = tokio::select! {
        biased;
        result = tokio::time::timeout_at(deadline, up) => match result {
            Ok(Ok(_)) => None,
            // A stream that ends is the effect; the VM's end is the cause, and on its way.
            Ok(Err(BootError::Socket { .. })) => return Err(end_of(vmm).await.into()),
            Ok(Err(error)) => return Err(error),
            Err(_) => Some(()),
        },
        over = vmm.wait_over() => return Err(over.into()),
    };
    if silent.is_some() {
        return Err(BootError::AgentSilent { waited: patience, end: end_of(vmm).await });
    }
    timeline.mark(Phase::AgentUp);
    Ok(Agent::on(stream))
}

/// Ends the VM to hear what its console said.
async fn end_of(vmm: &Vmm) -> Over {
    let stop = async {
        let _ = vmm.call(Request::Stop, Vec::new(), limits::CONTROL).await;
        vmm.wait_over().await
    };
    tokio::time::timeout(limits::CONTROL, stop).await.unwrap_or_else(|_| Over::died())
}

fn machine(kvm: OwnedFd, agent: OwnedFd, inputs: Inputs) -> (MachineConfig, Vec<OwnedFd>) {
    let mut fds = Vec::new();
    let mut pass = |fd: OwnedFd| {
        fds.push(fd);
        // At most `limits::PACKET_FDS`.
        Fd(u8::try_from(fds.len() - 1).unwrap_or(u8::MAX))
    };
    let Inputs { strip_setuid, exclusive_rootfs, .. } = inputs;
    let share = Device::Fs { tag: SHARE_TAG.to_owned(), read_only: false, strip_setuid, exclusive_rootfs };
    let machine = MachineConfig {
        memory_mib: inputs.sizes.memory_mib,
        max_memory_mib: inputs.sizes.max_memory_mib,
        files: inputs.sizes.files,
        vcpus: BOOT_VCPUS,
        max_vcpus: inputs.sizes.max_vcpus,
        kvm: pass(kvm),
        kernel: pass(inputs.kernel),
        initramfs: pass(inputs.initramfs),
        share: pass(inputs.share),
        devices: vec![
            (CONSOLE, Device::Console { log: None }),
            (
                VSOCK,
                Device::Vsock {
                    listener: pass(inputs.vsock_listener),
                    ports: vec![GuestPort { port: ports::AGENT, socket: pass(agent) }],
                },
            ),
            (FS, share),
            (RNG, Device::Rng),
            (BALLOON, Device::Balloon),
        ],
        debug_console: inputs.debug_console,
        huge_pages: inputs.huge_pages,
        stable_tsc: inputs.stable_tsc,
    };
    (machine, fds)
}

/// Reads the one line that comes before ttrpc. Nothing may follow it: the agent only answers.
pub(crate) async fn greeting(stream: &mut UnixStream) -> Result<Greeting, BootError> {
    let socket = |source| BootError::Socket { source };
    let mut line = [0; limits::LINE];
    let mut len = 0;
    loop {
        let read = stream.read(&mut line[len..]).await.map_err(socket)?;
        len += read;
        if let Some(end) = line[..len].iter().position(|&b| b == b'\n') {
            if end + 1 != len {
                return Err(GreetingError::NotAGreeting.into());
            }
            let text = std::str::from_utf8(&line[..end]).map_err(|_| GreetingError::NotAGreeting)?;
            return Ok(text.parse()?);
        }
        if read == 0 && len == 0 {
            return Err(socket(io::ErrorKind::UnexpectedEof.into()));
        }
        if read == 0 || len == line.len() {
            return Err(GreetingError::NotAGreeting.into());
        }
    }
}

#[cfg(test)]
mod tests;
