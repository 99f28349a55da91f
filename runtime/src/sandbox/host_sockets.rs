//! Unix sockets of the host that containers have: the guest says that a program has connected to one, and the server carries the
//! connection to it.
//!
//!   `add`: a volume's name ─▶ the socket, held open      guest ─WaitConnections─▶ number, volume ─▶ connect(2) to that socket
//!                                                                                          └▶ a stream to the agent ─▶ relay
//!
//! The guest names a volume of this table and nothing else. What is in the table was opened when the container was made, and is
//! connected to by its descriptor: no path is looked up again. The server connects, so the program on the host sees the server's
//! pid and uid.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bulkhead_protocol::{container::SharePath, limits, relay::Header};
use bulkhead_relay::{Endpoint, relay};
use tokio::{
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{
    agent::Agent,
    streams::{StreamError, Streams},
};

/// After an answer of the guest that names no socket of ours: it may have gone meanwhile, or the guest is hostile and answers
/// as fast as it is asked.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the program on the host did not take the connection for {:?}", limits::RELAY_CONNECT)]
    Late,
    #[error("carry the connection")]
    Carry(#[from] io::Error),
}

/// Clones share one table.
#[derive(Debug, Clone)]
pub(crate) struct HostSockets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    streams: Streams,
    sockets: Mutex<BTreeMap<SharePath, Arc<OwnedFd>>>,
    /// Somebody asks the guest.
    served: AtomicBool,
    places: Arc<Semaphore>,
}

impl HostSockets {
    pub(crate) fn new(streams: Streams) -> Self {
        let places = Arc::new(Semaphore::new(limits::RELAYS));
        let (sockets, served) = (Mutex::default(), AtomicBool::default());
        Self(Arc::new(Shared { streams, sockets, served, places }))
    }

    /// From now on connections to the volume lead to the socket behind this descriptor, which may be one of O_PATH.
    pub(crate) fn add(&self, volume: SharePath, socket: OwnedFd) {
        self.sockets().insert(volume, Arc::new(socket));
    }

    /// Connections that are open stay so.
    pub(crate) fn remove(&self, volume: &SharePath) {
        self.sockets().remove(volume);
    }

    /// Takes connections of the guest, if it has sockets, until its agent is gone. The first call counts.
    pub(crate) fn serve(&self, agent: &Agent) {
        if !self.sockets().is_empty() && !self.0.served.swap(true, Relaxed) {
            drop(tokio::spawn(self.clone().follow(agent.clone())));
        }
    }

    async fn follow(self, agent: Agent) {
        while let Ok(connections) = agent.connections().await {
            let mut known = false;
            for (number, volume) in connections {
                let Some(socket) = self.sockets().get(&volume).cloned() else { continue };
                known = true;
                // The semaphore is never closed.
                let Ok(place) = self.0.places.clone().acquire_owned().await else { return };
                tokio::spawn(self.clone().carry(number, socket, place));
            }
            if !known {
                sleep(PAUSE).await;
            }
        }
    }

    /// Who hears of a failure is the program in the guest, whose connection is closed.
    async fn carry(self, number: u64, socket: Arc<OwnedFd>, place: OwnedSemaphorePermit) {
        let _ = self.try_carry(number, &socket).await;
        drop(place);
    }

    /// One connection, to the end of both directions.
    async fn try_carry(&self, number: u64, socket: &OwnedFd) -> Result<(), CarryError> {
        // The guest first: when the host does not take the connection, this one is closed, and so is the program's.
        let guest = self.0.streams.open(&Header::Socket(number)).await?;
        let host = timeout(limits::RELAY_CONNECT, reach(socket.as_fd())).await;
        let host = Endpoint::new(host.map_err(|_| CarryError::Late)??)?;
        Ok(relay(&host, &guest).await?)
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<SharePath, Arc<OwnedFd>>> {
        // Each critical section leaves the table whole.
        self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to a socket by its descriptor: the kernel follows the link in /proc to the file that is open.
async fn reach(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    loop {
        match UnixStream::connect(&path).await {
            // Its backlog is full. A blocking connect(2) would wait for that; there is no event for who does not block.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(Duration::from_millis(50)).await,
            connected => return Ok(connected?.into_std()?.into()),
        }
    }
}

#[cfg(test)]
mod tests;
