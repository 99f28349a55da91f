//! Unix sockets of the host that containers have. The agent listens in their place, and the host takes each connection on.
//!
//!   program ─connect─▶ the file of a volume ─accept─▶ waiting, by number ─`wait`─▶ the host ─a stream of `relay`─▶ `take`
//!
//! So the guest asks for nothing but "somebody has connected here", and the host decides where that leads. At most
//! `limits::RELAYS` connections wait or are carried at once. Further ones wait in the backlog, as those of a busy server do.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bulkhead_protocol::{
    container::{SharePath, SocketFile},
    limits,
};
use tokio::{
    net::UnixListener,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::sleep,
};

use crate::say;

/// After an accept that failed for want of descriptors or memory: others may give some back meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// Clones share one table.
#[derive(Debug, Clone)]
pub struct HostSockets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Notify,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

/// A connection that the host has not taken.
#[derive(Debug)]
struct Connection {
    volume: SharePath,
    announced: bool,
    accepted: Accepted,
}

/// A connection of a program, and its place among those that may be at once.
#[derive(Debug)]
pub struct Accepted {
    pub stream: OwnedFd,
    pub place: OwnedSemaphorePermit,
}

/// A socket on which the agent listens. Dropping it removes the file; connections go on.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    task: AbortHandle,
}

impl Default for HostSockets {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(limits::RELAYS));
        Self(Arc::new(Shared { waiting: Mutex::default(), news: Notify::new(), places }))
    }
}

impl HostSockets {
    /// Listens at `path` for the volume, in a task of its own.
    ///
    /// # Errors
    /// When the socket cannot be made there, or not with that owner.
    pub fn listen(&self, path: &Path, file: SocketFile, volume: SharePath) -> io::Result<Listening> {
        let listener = UnixListener::bind(path)?;
        let task = tokio::spawn(self.clone().serve(listener, volume)).abort_handle();
        // From here on it is removed when that fails.
        let listening = Listening { path: path.to_owned(), task };
        chown(path, Some(file.uid), Some(file.gid))?;
        // After the owner, whose change takes bits away.
        fs::set_permissions(path, Permissions::from_mode(file.mode))?;
        Ok(listening)
    }

    async fn serve(self, listener: UnixListener, volume: SharePath) {
        loop {
            match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => {
                    // The semaphore is never closed.
                    let Ok(place) = self.0.places.clone().acquire_owned().await else { return };
                    self.add(&volume, Accepted { stream: stream.into(), place });
                }
                Err(error) => {
                    say!("accept a connection to a socket of the host: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn add(&self, volume: &SharePath, accepted: Accepted) {
        let number = {
            let mut waiting = self.waiting();
            let number = waiting.next;
            waiting.next += 1;
            let connection = Connection { volume: volume.clone(), announced: false, accepted };
            waiting.connections.insert(number, connection);
            number
        };
        self.0.news.notify_one();
        let all = self.clone();
        tokio::spawn(async move {
            sleep(limits::RELAY_CONNECT).await;
            // Closed, if the host has not taken it.
            drop(all.take(number));
        });
    }

    /// Connections that nobody was told of yet, at least one: their numbers, and the volumes that were connected to.
    pub async fn wait(&self) -> Vec<(u64, SharePath)> {
        loop {
            let mut told = Vec::new();
            for (number, connection) in &mut self.waiting().connections {
                if !std::mem::replace(&mut connection.announced, true) {
                    told.push((*number, connection.volume.clone()));
                }
            }
            if !told.is_empty() {
                return told;
            }
            self.0.news.notified().await;
        }
    }

    /// A connection that waits; each once.
    pub fn take(&self, number: u64) -> Option<Accepted> {
        self.waiting().connections.remove(&number).map(|connection| connection.accepted)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each critical section leaves the table whole.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = fs::remove_file(&self.path) {
            say!("remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests;
