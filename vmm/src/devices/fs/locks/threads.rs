//! The threads that wait in the kernel for locks which somebody outside of this guest has.
//!
//! They come with the device, since no thread can be made while the guest runs, and wait for work. They have no capabilities and
//! a short list of system calls: what they need was opened by others.

use std::{
    io,
    sync::{Arc, mpsc::channel},
    thread::JoinHandle,
};

use rustix::{io::Errno, thread::gettid};
use vmm_sys_util::signal::register_signal_handler;

use super::{
    Locks, call,
    file::FileLocks,
    request::Kind,
    waiting::{Thread, Waiting},
};
use crate::{
    confine::{self, ConfineError},
    threads,
};

/// Locks of strangers that can be waited for at once, each by one owner or by many.
const THREADS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum WaiterError {
    #[error("install the handler of the signal that ends a wait")]
    Signal { source: vmm_sys_util::errno::Error },
    #[error("start a thread that waits for locks")]
    Spawn { source: io::Error },
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("a thread that waits for locks ended before it was ready")]
    Ended,
}

/// The threads; dropping them ends what waits, without an answer.
#[derive(Debug)]
pub(in super::super) struct Waiters {
    locks: Arc<Locks>,
    threads: Vec<JoinHandle<()>>,
}

/// Does nothing: its arrival makes the call that waits return.
extern "C" fn on_wake(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Waiters {
    /// Returns when all are confined.
    ///
    /// # Errors
    /// A thread could not be started or confined. Those that were started end.
    pub(in super::super) fn spawn(locks: &Arc<Locks>) -> Result<Self, WaiterError> {
        register_signal_handler(call::wake_signal(), on_wake)
            .map_err(|source| WaiterError::Signal { source })?;
        let mut waiters = Self { locks: Arc::clone(locks), threads: Vec::new() };
        let (ready, confined) = channel();
        let process = rustix::process::getpid().as_raw_pid();
        for number in 0..THREADS {
            let name = format!("lock{number}");
            let (locks, ready) = (Arc::clone(locks), ready.clone());
            let run = {
                let name = name.clone();
                move || {
                    let thread = Thread { process, id: gettid().as_raw_pid() };
                    let entered = confine::enter(confine::Kind::Locks, &name);
                    let failed = entered.is_err();
                    // The spawner waits for it.
                    let _ = ready.send(entered);
                    if !failed {
                        serve(&locks, thread);
                    }
                }
            };
            let thread = threads::named(name).spawn(run).map_err(|source| WaiterError::Spawn { source })?;
            waiters.threads.push(thread);
        }
        drop(ready);
        for _ in 0..THREADS {
            confined.recv().map_err(|_| WaiterError::Ended)??;
        }
        locks.queue.free(THREADS);
        Ok(waiters)
    }
}

fn serve(locks: &Arc<Locks>, thread: Thread) {
    while let Some((file, waiting)) = locks.queue.next() {
        let outcome = wait(&file, &waiting, thread);
        locks.waited(&file, &waiting, outcome);
        locks.queue.free(1);
    }
}

fn wait(file: &FileLocks, waiting: &Waiting, thread: Thread) -> Result<(), Errno> {
    let request = waiting.request();
    match request.kind {
        Kind::Posix => {
            // The owner is there as long as a request of it waits, unless the file was taken from the guest.
            let description = file.state().description(request.owner).ok_or(Errno::STALE)?;
            waiting.wait(thread, description.file())
        }
        Kind::Flock => waiting.wait(thread, waiting.file()),
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        self.locks.end_all();
        self.locks.queue.close();
        for thread in self.threads.drain(..) {
            // A panic has been reported by the hook.
            let _ = thread.join();
        }
    }
}
