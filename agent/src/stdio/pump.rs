//! A `Pump` copies one direction: it reads from its source what there is, writes all of it to the sink, and ends the
//! sink when the source ends.
//!
//! Output also ends at an exit, at a byte: `Output::finish` asks, between two reads, how many bytes were taken so far
//! and how many the pipe still holds. Nothing written before the exit lies beyond that limit, and the answer does not
//! wait for a reader. What cannot be delivered (the host closed its end) drops the source: the process gets SIGPIPE.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bulkhead_relay::{Endpoint, read_now};
use rustix::io::ioctl_fionread;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Bytes held for a far side that has not taken them.
pub const CHUNK: usize = 64 << 10;
/// More than a pty holds of what was written to it (the kernel's limits are 8 KiB and 4 KiB).
const TTY_TAIL: u64 = 64 << 10;
/// How long an exit with a terminal waits for the terminal's reader.
const TTY_DRAIN: Duration = Duration::from_secs(10);
/// How long a stream stays whole after our half-close, for the host to close its own half first.
const LINGER: Duration = Duration::from_secs(30);

/// A source and how much has been read from it. The lock is held across one read that does not wait, never longer.
#[derive(Debug)]
struct Source {
    endpoint: Arc<Endpoint>,
    taken: Mutex<u64>,
}

impl Source {
    fn taken(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads without waiting, at most up to `limit` bytes in all; 0 is the end.
    fn take(&self, buffer: &mut [u8], limit: u64) -> io::Result<usize> {
        let mut taken = self.taken();
        let room = usize::try_from(limit - *taken).unwrap_or(usize::MAX).min(buffer.len());
        let count = read_now(self.endpoint.as_fd(), &mut buffer[..room])?;
        *taken += count as u64;
        Ok(count)
    }

    /// Bytes read so far and those that wait in the pipe.
    fn total(&self) -> io::Result<u64> {
        let taken = self.taken();
        Ok(*taken + ioctl_fionread(&self.endpoint)?)
    }
}

/// The output pump of one process, as its supervisor sees it.
#[derive(Debug)]
pub struct Output {
    /// Weak: only the pump keeps the pipe open, so that a pump that fails closes it.
    source: Weak<Source>,
    limit: watch::Sender<Option<u64>>,
    /// Answers the bytes sent.
    pump: JoinHandle<u64>,
}

impl Output {
    /// Starts to copy from a pipe or pty to a stream.
    pub fn start(from: Arc<Endpoint>, to: Arc<Endpoint>) -> Self {
        let source = Arc::new(Source { endpoint: from, taken: Mutex::new(0) });
        let (limit, limits) = watch::channel(None);
        Self { source: Arc::downgrade(&source), limit, pump: tokio::spawn(copy_output(source, to, limits)) }
    }

    /// The writer of a pipe has exited: how many bytes its stream carries. The pump delivers them on its own.
    pub async fn finish_pipe(self) -> u64 {
        let total = self.source.upgrade().and_then(|source| source.total().ok());
        match total {
            Some(total) => {
                self.limit.send_replace(Some(total));
                total
            }
            None => self.sent().await,
        }
    }

    /// The same for a terminal, whose kernel buffers cannot be asked: waits, within reason, until it is read empty.
    pub async fn finish_tty(mut self) -> u64 {
        let source = self.source.upgrade();
        if let Some(source) = &source {
            let limit = *source.taken() + TTY_TAIL;
            self.limit.send_replace(Some(limit));
        }
        let sent = timeout(TTY_DRAIN, &mut self.pump).await;
        match (sent, source) {
            (Ok(sent), _) => sent.unwrap_or(0),
            (Err(_), Some(source)) => *source.taken(),
            (Err(_), None) => self.sent().await,
        }
    }

    async fn sent(self) -> u64 {
        self.pump.await.unwrap_or(0)
    }
}

/// Runs until the source's end, the limit or a failure of the sink; answers how many bytes the sink took.
async fn copy_output(
    source: Arc<Source>,
    sink: Arc<Endpoint>,
    mut limits: watch::Receiver<Option<u64>>,
) -> u64 {
    let mut buffer = vec![0; CHUNK];
    let mut sent = 0;
    loop {
        let limit = *limits.borrow_and_update();
        let read = match limit {
            None => tokio::select! {
                read = source.endpoint.when_readable(|_| source.take(&mut buffer, u64::MAX)) => read,
                _ = limits.changed() => continue,
            },
            // What was written before the exit is there now; if somebody else has read it, it will never come.
            Some(limit) => source.take(&mut buffer, limit),
        };
        let Ok(count @ 1..) = read else { break };
        if sink.write_all(&buffer[..count]).await.is_err() {
            return sent;
        }
        sent += count as u64;
    }
    drop((source, buffer));
    // The bytes are with the kernel; how the stream is closed does not change their number.
    tokio::spawn(async move {
        if sink.half_close().is_ok() {
            let _ = timeout(LINGER, closed_by_peer(&sink)).await;
        }
    });
    sent
}

/// Copies a stream to a process's stdin, and closes that when the host half-closes. Abort it at the exit.
pub async fn copy_input(from: Arc<Endpoint>, to: Arc<Endpoint>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn closed_by_peer(stream: &Endpoint) {
    let mut ignored = [0; 512];
    while let Ok(1..) = stream.read(&mut ignored).await {}
}

#[cfg(test)]
mod tests;
