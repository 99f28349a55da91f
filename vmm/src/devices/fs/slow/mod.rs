//! Operations that take as long as a disk takes: so few of them at a time that a worker is always left for the others.
//!
//!   slow request ─▶ `enter` ─ a place is free ─▶ serve ─▶ `leave` ─▶ the oldest that waits, on the same worker
//!                      └─ none is: it waits here, and the worker goes on with the next request
//!
//! What is slow is told by the opcode in the header of the message, which the guest may change afterwards: then it has
//! its own files wait.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_queue::DescriptorChain;
use virtiofsd::fuse::{InHeader, Opcode};
use vm_memory::{Bytes as _, GuestAddress};

use super::message::FileMemory;
use crate::memory::Memory;

/// Requests that wait for a place.
#[derive(Debug)]
pub(super) struct Slow<T> {
    state: Mutex<State<T>>,
    places: usize,
    /// Requests that may wait.
    most: usize,
}

#[derive(Debug)]
struct State<T> {
    taken: usize,
    waiting: VecDeque<T>,
}

impl<T> Slow<T> {
    /// `places`: slow requests that are served at once. `most`: requests that may wait, which is what the queues hold. A
    /// driver may offer a chain again before it is answered, and must not fill the VMM's memory that way.
    pub(super) fn new(places: usize, most: usize) -> Self {
        Self { state: Mutex::new(State { taken: 0, waiting: VecDeque::new() }), places, most }
    }

    /// Takes a place. Returns the request when it is to be served now, and `leave` called after it; `None` when it waits.
    pub(super) fn enter(&self, request: T) -> Option<T> {
        let mut state = self.state();
        if state.taken < self.places || state.waiting.len() >= self.most {
            state.taken += 1;
            return Some(request);
        }
        state.waiting.push_back(request);
        None
    }

    /// Gives the place to the request that has waited longest, which is then to be served. Frees the place when none waits.
    pub(super) fn leave(&self) -> Option<T> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.taken -= 1;
        }
        next
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True for a request that may wait for a disk to be done. The header is looked for where every driver puts it, at the
/// beginning of the first descriptor.
pub(super) fn is_slow(memory: &FileMemory, mut chain: DescriptorChain<Memory<BitmapMmapRegion>>) -> bool {
    let Some(first) = chain.next().filter(|first| first.len() as usize >= size_of::<InHeader>()) else {
        return false;
    };
    let header: Option<InHeader> = memory.read_obj(GuestAddress(first.addr().0)).ok();
    let opcode = header.and_then(|header| Opcode::try_from(header.opcode).ok());
    matches!(
        opcode,
        Some(Opcode::Syncfs | Opcode::Fsync | Opcode::Fsyncdir | Opcode::Fallocate | Opcode::CopyFileRange)
    )
}

#[cfg(test)]
mod tests;
