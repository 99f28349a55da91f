//! How the VMM makes a thread, and one that is confined before it does anything.
//!
//!   confined ─▶ thread: before, `confine::enter` ─▶ `Entering::wait` in the spawner
//!                          └─ it could ─▶ run
//!
//! Threads that confine themselves take a while: make all of a kind before the first is waited for.

use std::{
    io,
    sync::mpsc::{Receiver, channel},
    thread::{Builder, JoinHandle},
};

use crate::confine::{self, ConfineError, Kind};

/// Bytes of the stack of each thread. The largest frames hold a few buffers of a page. It is far below 2 MiB, since the kernel may
/// back an aligned stack of that size with a huge page: then each thread costs the host 2 MiB.
const STACK: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    #[error("start the thread {thread}")]
    Start { thread: String, source: io::Error },
    #[error("prepare the thread {thread}")]
    Prepare { thread: String, source: io::Error },
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("the thread {thread} ended before it was confined")]
    Ended { thread: String },
}

/// A thread that can be told by its name, of at most 15 bytes (PR_SET_NAME(2const)).
pub(crate) fn named(name: impl Into<String>) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK)
}

/// What a thread on its way into its confinement says when it is there.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entering {
    thread: String,
    entered: Receiver<Result<(), ThreadError>>,
}

impl Entering {
    /// Returns when the thread is confined and runs; one that could not be has ended.
    pub(crate) fn wait(self) -> Result<(), ThreadError> {
        let Self { thread, entered } = self;
        entered.recv().map_err(|_| ThreadError::Ended { thread })?
    }
}

/// Starts a thread that does `before`, confines itself as one of its kind, and then runs with what `before` gave.
pub(crate) fn confined<T>(
    kind: Kind,
    name: impl Into<String>,
    before: impl FnOnce() -> io::Result<T> + Send + 'static,
    run: impl FnOnce(T) + Send + 'static,
) -> Result<(JoinHandle<()>, Entering), ThreadError> {
    let name = name.into();
    let (ready, entered) = channel();
    let body = {
        let name = name.clone();
        move || {
            let prepared = before().map_err(|source| ThreadError::Prepare { thread: name.clone(), source });
            let entered = prepared.and_then(|prepared| {
                confine::enter(kind, &name)?;
                Ok(prepared)
            });
            // The spawner waits for it.
            match entered {
                Ok(prepared) => {
                    let _ = ready.send(Ok(()));
                    run(prepared);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        }
    };
    match named(name.as_str()).spawn(body) {
        Ok(thread) => Ok((thread, Entering { thread: name, entered })),
        Err(source) => Err(ThreadError::Start { thread: name, source }),
    }
}

/// For `confined`: there is nothing to prepare.
pub(crate) fn unprepared() -> io::Result<()> {
    Ok(())
}
