//! Tells containerd what happens, in order.
//!
//!   tasks ─▶ queue ─▶ one task: connect, Forward, again until it is taken ─▶ containerd (TTRPC_ADDRESS)
//!
//! While containerd is away events wait; of more than `QUEUE` the oldest are lost. Without an address (CRI-O) nobody wants any.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{api::ForwardRequest, shim::event::Envelope, shim_async::EventsClient};
use protobuf::{MessageFull, well_known_types::any::Any};
use tokio::{net::UnixStream, sync::Notify, time::sleep};
use ttrpc::{
    asynchronous::{Client, transport::Socket},
    context,
};

use crate::{log::note, time::timestamp};

const QUEUE: usize = 4096;
/// For containerd to take one.
const TAKEN: Duration = Duration::from_secs(5);
/// Before the next try.
const AGAIN: Duration = Duration::from_millis(500);

/// Queues events; costs nothing when nobody wants them.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    namespace: String,
    queue: Option<Arc<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Envelope>>,
    more: Notify,
    taken: Notify,
}

impl Queue {
    fn first(&self) -> Option<Envelope> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    fn done(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.taken.notify_waiters();
    }
}

impl Publisher {
    /// Begins to publish to the address that containerd gives each shim.
    pub(super) fn start(namespace: &str) -> Self {
        let address = std::env::var_os("TTRPC_ADDRESS").filter(|address| !address.is_empty());
        let queue = address.map(|address| {
            let queue = Arc::new(Queue::default());
            tokio::spawn(publish(queue.clone(), PathBuf::from(address)));
            queue
        });
        Self { namespace: namespace.to_owned(), queue }
    }

    /// Queues an event. `kind` is the last part of its topic: `exit` of `/tasks/exit`.
    pub(super) fn send<E: MessageFull>(&self, kind: &str, event: &E) {
        let Some(queue) = &self.queue else { return };
        let Ok(value) = event.write_to_bytes() else { return };
        let type_url = E::descriptor().full_name().to_owned();
        let event = Any { type_url, value, ..Default::default() };
        let envelope = Envelope {
            timestamp: timestamp(SystemTime::now()),
            namespace: self.namespace.clone(),
            topic: format!("/tasks/{kind}"),
            event: Some(event).into(),
            ..Default::default()
        };
        let mut waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == QUEUE {
            waiting.pop_front();
        }
        waiting.push_back(envelope);
        drop(waiting);
        queue.more.notify_one();
    }

    /// Until all are taken, or `patience` is over.
    pub(super) async fn flushed(&self, patience: Duration) {
        let Some(queue) = &self.queue else { return };
        let all = async {
            loop {
                let taken = queue.taken.notified();
                if queue.first().is_none() {
                    return;
                }
                taken.await;
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }
}

async fn publish(queue: Arc<Queue>, address: PathBuf) {
    let mut client = None;
    let mut said = false;
    loop {
        let Some(envelope) = queue.first() else {
            queue.more.notified().await;
            continue;
        };
        match forward(&mut client, &address, envelope).await {
            Ok(()) => {
                queue.done();
                said = false;
            }
            Err(error) => {
                client = None;
                // Once, and not each time.
                if !std::mem::replace(&mut said, true) {
                    note(&format!("publish an event: {error}"));
                }
                sleep(AGAIN).await;
            }
        }
    }
}

async fn forward(
    client: &mut Option<EventsClient>,
    address: &PathBuf,
    envelope: Envelope,
) -> Result<(), String> {
    let connected = match client.take() {
        Some(client) => client,
        None => {
            let stream = UnixStream::connect(address).await.map_err(|error| error.to_string())?;
            EventsClient::new(Client::new(Socket::from(stream)))
        }
    };
    let request = ForwardRequest { envelope: Some(envelope).into(), ..Default::default() };
    let sent = connected.forward(context::with_duration(TAKEN), &request).await;
    sent.map_err(|error| error.to_string())?;
    *client = Some(connected);
    Ok(())
}
