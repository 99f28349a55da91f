//! The threads that wait in the kernel for locks which somebody outside of this guest has.
//!
//! They come with the device, since no thread can be made while the guest runs, and wait for work. They have no capabilities and
//! a short list of system calls: what they need was opened by others.

use std::{sync::Arc, thread::JoinHandle};

use rustix::{io::Errno, thread::gettid};
use vmm_sys_util::signal::register_signal_handler;

use super::{
    Locks, call,
    file::FileLocks,
    request::Kind,
    waiting::{Thread, Waiting},
};
use crate::{
    confine,
    threads::{Entering, ThreadError, confined},
};

/// Locks of strangers that can be waited for at once, each by one owner or by many.
const THREADS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum WaiterError {
    #[error("install the handler of the signal that ends a wait")]
    Signal { source: vmm_sys_util::errno::Error },
    #[error(transparent)]
    Thread(#[from] ThreadError),
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
        let process = rustix::process::getpid().as_raw_pid();
        let mut entering = Vec::new();
        for number in 0..THREADS {
            let locks = Arc::clone(locks);
            let itself = move || Ok(Thread { process, id: gettid().as_raw_pid() });
            let run = move |thread| serve(&locks, thread);
            let (thread, enters) = confined(confine::Kind::Locks, format!("lock{number}"), itself, run)?;
            waiters.threads.push(thread);
            entering.push(enters);
        }
        entering.into_iter().try_for_each(Entering::wait)?;
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
