//! Streams that the host has opened for a process that is not made yet, by token.
//!
//! A token names one process and is used once. What nobody takes within `EXPIRY` is closed, and no more than `TOKENS`
//! wait at a time: the server is trusted, but a server that died and came back is not tidy.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bulkhead_protocol::{
    id::StreamToken,
    stdio::{Header, Stream},
};

/// Processes whose streams may wait at once.
pub const TOKENS: usize = 1024;
/// How long streams wait for their process.
pub const EXPIRY: Duration = Duration::from_secs(60);

/// The streams of one process, each opened or not.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub tty: Option<OwnedFd>,
}

/// Which streams the host says it has opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PendingError {
    #[error("stream {stream:?} of token {token} is open already")]
    Taken { token: StreamToken, stream: Stream },
    #[error("the streams of {max} processes are open and unused, and there cannot be more", max = TOKENS)]
    Full,
    #[error("stream {stream:?} of token {token} is not open: it never was, or {EXPIRY:?} have passed")]
    Missing { token: StreamToken, stream: Stream },
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    streams: Streams,
}

#[derive(Debug, Default)]
pub struct PendingStreams(Mutex<HashMap<StreamToken, Entry>>);

impl PendingStreams {
    /// Keeps a stream for the process that its header names.
    pub fn insert(&self, header: Header, stream: OwnedFd, now: Instant) -> Result<(), PendingError> {
        let Header { token, stream: kind } = header;
        let mut entries = self.entries(now);
        if entries.len() >= TOKENS && !entries.contains_key(&token) {
            return Err(PendingError::Full);
        }
        let entry =
            entries.entry(token.clone()).or_insert_with(|| Entry { since: now, streams: Streams::default() });
        let place = entry.streams.place(kind);
        if place.is_some() {
            return Err(PendingError::Taken { token, stream: kind });
        }
        *place = Some(stream);
        Ok(())
    }

    /// Gives out the wanted streams; all others of the token are closed.
    pub fn take(&self, token: &StreamToken, wanted: Wanted, now: Instant) -> Result<Streams, PendingError> {
        let mut found = self.entries(now).remove(token).map(|entry| entry.streams).unwrap_or_default();
        let mut given = Streams::default();
        for stream in [Stream::Stdin, Stream::Stdout, Stream::Stderr, Stream::Tty] {
            if wanted.has(stream) {
                let missing = || PendingError::Missing { token: token.clone(), stream };
                *given.place(stream) = Some(found.place(stream).take().ok_or_else(missing)?);
            }
        }
        Ok(given)
    }

    /// Closes what has waited too long.
    pub fn expire(&self, now: Instant) {
        drop(self.entries(now));
    }

    /// The entries, without those that have expired.
    fn entries(&self, now: Instant) -> MutexGuard<'_, HashMap<StreamToken, Entry>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| now.saturating_duration_since(entry.since) < EXPIRY);
        entries
    }
}

impl Wanted {
    fn has(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdin => self.stdin,
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
            Stream::Tty => self.tty,
        }
    }
}

impl Streams {
    fn place(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdin => &mut self.stdin,
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            Stream::Tty => &mut self.tty,
        }
    }
}

#[cfg(test)]
mod tests;
