//! The pod's network devices: what a namespace of the host has, plugged into the VM and set up in a container.
//!
//!   prepare / look_again: namespace ─scan─▶ new interfaces ─attach─▶ taps       (needs no guest: runs while it boots)
//!   apply: tap ─Plug─▶ VMM, slot ─BindSlot─▶ agent, addresses and routes ─UpdateNetwork─▶ agent
//!
//! A namespace that was given by its path is read when the container is made and again at its start; a fresh one, which
//! is that of the container's proxy, at the start only. A look that finds nothing new costs the guest nothing.

use std::{collections::BTreeSet, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use bulkhead_protocol::{
    agent::UpdateNetworkRequest,
    id::ContainerId,
    limits,
    vmm::{Device, Fd, Request},
};

use tokio::sync::OwnedMutexGuard;

use super::{
    agent::{Agent, AgentError},
    slots::{self, NICS},
    vmm::{Vmm, VmmError},
};
use crate::{
    network::{self, Interface, Namespace, NetworkError, Scan},
    store::{Entry, Journal},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum NicsError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("visit the network namespace: {reason}")]
    Visit { reason: String },
    #[error("the network namespace has more than {NICS} interfaces")]
    TooMany,
    #[error("plug a device for interface {interface}")]
    Plug { interface: String, source: VmmError },
    #[error("bind the device for interface {interface} in the guest")]
    Bind { interface: String, source: AgentError },
    #[error("set up the guest's network")]
    Update { source: AgentError },
}

/// What one look at a namespace has found. Until it is applied or dropped there is no other look.
#[derive(Debug)]
pub(crate) struct Found {
    namespace: Namespace,
    new: Vec<(Interface, OwnedFd)>,
    request: UpdateNetworkRequest,
    state: OwnedMutexGuard<State>,
}

impl Found {
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

#[derive(Debug)]
pub(crate) struct Nics {
    vmm: Vmm,
    journal: Journal,
    /// Whether the host kernel shall move the frames, where it can.
    vhost: bool,
    /// `None`: the namespace of a proxy.
    given: Option<(PathBuf, Namespace)>,
    /// Locked from a look to the end of what follows from it: that is its purpose.
    state: Arc<tokio::sync::Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Indices of the interfaces that have a device.
    plugged: BTreeSet<u32>,
    /// How many of the slots for network devices are taken.
    slots: u8,
    applied: Option<UpdateNetworkRequest>,
}

impl Nics {
    pub(crate) fn new(vmm: Vmm, journal: Journal, vhost: bool, given: Option<(PathBuf, Namespace)>) -> Self {
        Self { vmm, journal, vhost, given, state: Arc::default() }
    }

    pub(crate) fn given(&self) -> Option<&Namespace> {
        self.given.as_ref().map(|(_, namespace)| namespace)
    }

    /// Looks at a namespace that was given by its path.
    pub(crate) async fn prepare(&self) -> Result<Option<Found>, NicsError> {
        match &self.given {
            Some((path, namespace)) => self.look(namespace, Some(path)).await,
            None => Ok(None),
        }
    }

    /// Looks at it again, or at that of the proxy.
    pub(crate) async fn look_again(&self, proxy: u32) -> Result<Option<Found>, NicsError> {
        if self.given.is_some() {
            return self.prepare().await;
        }
        if proxy == 0 || !network::has_interfaces(proxy) {
            return Ok(None);
        }
        match Namespace::open(format!("/proc/{proxy}/ns/net").as_ref()) {
            Ok(namespace) => self.look(&namespace, None).await,
            // A proxy that was not made by our command.
            Err(NetworkError::Host { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn look(&self, namespace: &Namespace, path: Option<&PathBuf>) -> Result<Option<Found>, NicsError> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let (inside, path, journal) = (namespace.clone(), path.cloned(), self.journal.clone());
        let plugged = state.plugged.clone();
        let visit = move || {
            let id = inside.id().map_err(|source| NetworkError::Enter { source })?;
            inside.visit(async |handle| {
                let Scan { interfaces, request } = Scan::of(handle).await?;
                let mut new = Vec::new();
                for interface in interfaces.into_iter().filter(|found| !plugged.contains(&found.index)) {
                    // In a namespace of others it is named before it is changed; a proxy's ends with the proxy.
                    let before = |tap| match path.clone() {
                        Some(namespace) => Ok(journal.append(&Entry::Redirect {
                            namespace,
                            id,
                            interface: interface.index,
                            tap,
                        })?),
                        None => Ok(()),
                    };
                    match network::attach(handle, &interface, before).await {
                        Ok(tap) => new.push((interface, tap)),
                        Err(error) => {
                            network::detach(handle, new.iter().map(|(made, _)| made)).await;
                            return Err(error);
                        }
                    }
                }
                Ok((new, request))
            })
        };
        let (new, request) = in_background(visit).await??;
        let known = state.applied.as_ref() == Some(&request);
        let nothing = new.is_empty() && (known || request.interfaces.is_empty());
        Ok((!nothing).then(|| Found { namespace: namespace.clone(), new, request, state }))
    }

    /// Gives the guest what was found, in the network namespace of `container`. After an error the next look finds it
    /// again.
    pub(crate) async fn apply(
        &self,
        agent: &Agent,
        container: &ContainerId,
        found: Found,
    ) -> Result<(), NicsError> {
        let Found { namespace, new, mut request, mut state } = found;
        let made: Vec<_> = new.iter().map(|(interface, _)| interface.clone()).collect();
        if let Err(error) = self.plug(agent, new, &mut state).await {
            let lost: Vec<_> =
                made.into_iter().filter(|interface| !state.plugged.contains(&interface.index)).collect();
            let detach = move || {
                namespace.visit(async |handle| {
                    network::detach(handle, lost.iter()).await;
                    Ok(())
                })
            };
            // The error that led here says more than one of this.
            let _ = in_background(detach).await;
            return Err(error);
        }
        let unnamed = request.clone();
        request.container_id = container.to_string();
        agent.update_network(&request).await.map_err(|source| NicsError::Update { source })?;
        state.applied = Some(unnamed);
        Ok(())
    }

    async fn plug(
        &self,
        agent: &Agent,
        new: Vec<(Interface, OwnedFd)>,
        state: &mut State,
    ) -> Result<(), NicsError> {
        for (Interface { index, name: interface, mac, mtu }, tap) in new {
            let slot = slots::nic(state.slots).ok_or(NicsError::TooMany)?;
            let vhost = if self.vhost { network::open_vhost() } else { None };
            let device = Device::Net { tap: Fd(0), vhost: vhost.as_ref().map(|_| Fd(1)), mac, mtu };
            let fds = std::iter::once(tap).chain(vhost).collect();
            match self.vmm.call(Request::Plug { slot, device }, fds, limits::CONTROL).await {
                Ok(_) => state.slots += 1,
                Err(source) => return Err(NicsError::Plug { interface, source }),
            }
            state.plugged.insert(index);
            agent.bind_slot(slot).await.map_err(|source| NicsError::Bind { interface, source })?;
        }
        Ok(())
    }
}

/// What blocks, beside the server's one thread.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<Result<T, NetworkError>, NicsError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| NicsError::Visit { reason: error.to_string() })
}
