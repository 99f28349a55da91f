//! The pod's network devices: what a namespace of the host has, plugged into the VM and set up in a container.
//!
//!   prepare / look_again: namespace ─scan─▶ new interfaces ─attach─▶ taps       (needs no guest: runs while it boots)
//!   apply: tap ─Plug─▶ VMM, slot ─BindSlot─▶ agent, addresses and routes ─UpdateNetwork─▶ agent
//!
//! A namespace that was given by its path is read when the container is made and again at its start; a fresh one, which
//! is that of the container's proxy, at the start only. A look that finds nothing new costs the guest nothing.

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bulkhead_protocol::{
    agent::UpdateNetworkRequest,
    id::ContainerId,
    limits,
    vmm::{Device, Fd, Request, Slot},
};

use super::{
    agent::{Agent, AgentError},
    vmm::{Vmm, VmmError},
};
use crate::{
    network::{self, Interface, Namespace, NetworkError, Scan},
    state::{Entry, Journal},
};

/// Slots are given out from the last one down; those below belong to other devices.
const LAST: u8 = limits::SLOTS as u8 - 1;
/// Network devices of one pod.
const MOST: u8 = 8;

#[derive(Debug, thiserror::Error)]
pub(super) enum NicsError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("visit the network namespace: {reason}")]
    Visit { reason: String },
    #[error("the network namespace has more than {MOST} interfaces")]
    TooMany,
    #[error("plug a device for interface {interface}")]
    Plug { interface: String, source: VmmError },
    #[error("bind the device for interface {interface} in the guest")]
    Bind { interface: String, source: AgentError },
    #[error("set up the guest's network")]
    Update { source: AgentError },
}

/// What one look at a namespace has found.
#[derive(Debug)]
pub(super) struct Found {
    new: Vec<(Interface, OwnedFd)>,
    request: UpdateNetworkRequest,
}

#[derive(Debug)]
pub(super) struct Nics {
    vmm: Vmm,
    journal: Journal,
    /// `None`: the namespace of a proxy.
    given: Option<(PathBuf, Namespace)>,
    state: Arc<Mutex<State>>,
    /// One look and what follows from it at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By the interface's index: those that have a tap.
    attached: BTreeSet<u32>,
    slots: u8,
    applied: Option<UpdateNetworkRequest>,
}

impl Nics {
    pub(super) fn new(vmm: Vmm, journal: Journal, given: Option<(PathBuf, Namespace)>) -> Self {
        Self { vmm, journal, given, state: Arc::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Looks at a namespace that was given by its path.
    pub(super) async fn prepare(&self) -> Result<Option<Found>, NicsError> {
        match &self.given {
            Some((path, namespace)) => self.look(namespace, Some(path)).await,
            None => Ok(None),
        }
    }

    /// Looks at it again, or at that of the proxy.
    pub(super) async fn look_again(&self, proxy: u32) -> Result<Option<Found>, NicsError> {
        if self.given.is_some() {
            return self.prepare().await;
        }
        if proxy == 0 || !network::has_interfaces(proxy) {
            return Ok(None);
        }
        let namespace = match Namespace::open(format!("/proc/{proxy}/ns/net").as_ref()) {
            Ok(namespace) => namespace,
            // A sandbox whose proxy was not made by our command.
            Err(NetworkError::Host { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.look(&namespace, None).await
    }

    async fn look(&self, namespace: &Namespace, path: Option<&PathBuf>) -> Result<Option<Found>, NicsError> {
        let _turn = self.turn.lock().await;
        let (namespace, path) = (namespace.clone(), path.cloned());
        let (journal, state) = (self.journal.clone(), Arc::clone(&self.state));
        let visit = move || {
            let id = namespace.id().map_err(|source| NetworkError::Enter { source })?;
            namespace.visit(async |handle| {
                let scan = Scan::of(handle).await?;
                let mut new = Vec::new();
                for interface in scan.interfaces {
                    if lock(&state).attached.contains(&interface.index) {
                        continue;
                    }
                    // In a namespace of others it is named before it is changed; a proxy's ends with the proxy.
                    let before = || match &path {
                        Some(path) => Ok(journal.append(&Entry::Redirect {
                            namespace: path.clone(),
                            id,
                            interface: interface.index,
                        })?),
                        None => Ok(()),
                    };
                    let tap = network::attach(handle, &interface, before).await?;
                    lock(&state).attached.insert(interface.index);
                    new.push((interface, tap));
                }
                Ok(Found { new, request: scan.request })
            })
        };
        let found = tokio::task::spawn_blocking(visit).await;
        let found = found.map_err(|error| NicsError::Visit { reason: error.to_string() })??;
        let known = lock(&self.state).applied.as_ref() == Some(&found.request);
        let nothing = found.new.is_empty() && (known || found.request.interfaces.is_empty());
        Ok((!nothing).then_some(found))
    }

    /// Gives the guest what was found, in the network namespace of `container`.
    pub(super) async fn apply(
        &self,
        agent: &Agent,
        container: &ContainerId,
        found: Found,
    ) -> Result<(), NicsError> {
        let _turn = self.turn.lock().await;
        for (interface, tap) in found.new {
            let slot = self.next_slot()?;
            let device = Device::Net { tap: Fd(0), mac: interface.mac, mtu: interface.mtu };
            let plugged = self.vmm.call(Request::Plug { slot, device }, vec![tap], limits::CONTROL).await;
            let interface = interface.name;
            if let Err(source) = plugged {
                return Err(NicsError::Plug { interface, source });
            }
            agent.bind_slot(slot).await.map_err(|source| NicsError::Bind { interface, source })?;
        }
        let mut request = found.request.clone();
        request.container_id = container.to_string();
        agent.update_network(&request).await.map_err(|source| NicsError::Update { source })?;
        lock(&self.state).applied = Some(found.request);
        Ok(())
    }

    fn next_slot(&self) -> Result<Slot, NicsError> {
        let mut state = lock(&self.state);
        if state.slots == MOST {
            return Err(NicsError::TooMany);
        }
        state.slots += 1;
        Ok(Slot(LAST + 1 - state.slots))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
