//! The hotplug region of a machine: how much of it the guest may plug, and which blocks it has.
//!
//!   control thread ── `resize` ──▶ requested        device loop ── `plug`, `unplug` ──▶ blocks, plugged
//!
//! Two sizes that vCPU threads read as config space, and a bitmap that only the device loop touches. `plugged` never
//! exceeds what was requested when a block was plugged, so what the guest can hold is what the host allowed.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    devices::interrupt::Interrupt,
    memory::{HUGE_PAGE, Memory, MemoryError, Region},
};

/// What is plugged at once: Linux cannot take less (a page block), and the host gives and takes large pages.
pub(super) const BLOCK: u64 = HUGE_PAGE as u64;

/// The device's word on a request (virtio 1.2, 5.15.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Ack,
    State(State),
    /// More than was requested.
    Nack,
    /// Not now: the host has no room for another mapping.
    Busy,
    /// Blocks that do not exist, or are not in the state that the request needs.
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Plugged,
    Unplugged,
    Mixed,
}

#[derive(Debug)]
pub struct Room {
    region: Region,
    requested: AtomicU64,
    plugged: AtomicU64,
    /// True where plugged.
    blocks: Mutex<Vec<bool>>,
    /// Of the driver that wants to hear of a new size.
    driver: Mutex<Option<Arc<Interrupt>>>,
}

impl Room {
    /// Of a region of which nothing is accessible.
    pub fn new(region: Region) -> Self {
        Self {
            region,
            requested: AtomicU64::new(0),
            plugged: AtomicU64::new(0),
            blocks: Mutex::new(vec![false; region.size / HUGE_PAGE]),
            driver: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> u64 {
        self.region.guest
    }

    pub fn size(&self) -> u64 {
        self.region.size as u64
    }

    pub(super) fn plugged(&self) -> u64 {
        self.plugged.load(Ordering::Acquire)
    }

    pub(super) fn requested(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    /// How much the guest shall have, in whole blocks; a driver that is there is told. At most the region's size.
    pub fn resize(&self, bytes: u64) {
        let bytes = bytes.next_multiple_of(BLOCK).min(self.size());
        self.requested.store(bytes, Ordering::Release);
        if let Some(interrupt) = &*self.driver.lock().unwrap_or_else(PoisonError::into_inner) {
            interrupt.signal_config();
        }
    }

    /// Who is to be told from now on.
    pub(super) fn tell(&self, driver: Option<Arc<Interrupt>>) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = driver;
    }

    pub(super) fn plug(&self, memory: &Memory, address: u64, count: u16) -> Reply {
        let mut blocks = self.blocks();
        let Some(range) = self.range(address, count) else { return Reply::Error };
        if state(&blocks, &range) != State::Unplugged {
            return Reply::Error;
        }
        let len = u64::from(count) * BLOCK;
        if self.plugged() + len > self.requested() {
            return Reply::Nack;
        }
        if let Err(error) = memory.set_accessible(address, len, true) {
            crate::log::limited(&error);
            return Reply::Busy;
        }
        self.set(&mut blocks, range, true);
        Reply::Ack
    }

    pub(super) fn unplug(&self, memory: &Memory, address: u64, count: u16) -> Reply {
        let mut blocks = self.blocks();
        let Some(range) = self.range(address, count) else { return Reply::Error };
        if state(&blocks, &range) != State::Plugged {
            return Reply::Error;
        }
        if let Err(error) = take(memory, address, u64::from(count) * BLOCK) {
            crate::log::limited(&error);
            return Reply::Busy;
        }
        self.set(&mut blocks, range, false);
        Reply::Ack
    }

    pub(super) fn unplug_all(&self, memory: &Memory) -> Reply {
        let mut blocks = self.blocks();
        if let Err(error) = take(memory, self.address(), self.size()) {
            crate::log::limited(&error);
            return Reply::Busy;
        }
        let all = 0..blocks.len();
        self.set(&mut blocks, all, false);
        Reply::Ack
    }

    pub(super) fn state(&self, address: u64, count: u16) -> Reply {
        match self.range(address, count) {
            Some(range) => Reply::State(state(&self.blocks(), &range)),
            None => Reply::Error,
        }
    }

    fn set(&self, blocks: &mut [bool], range: Range<usize>, plugged: bool) {
        if let Some(blocks) = blocks.get_mut(range) {
            blocks.fill(plugged);
        }
        let plugged = blocks.iter().filter(|plugged| **plugged).count() as u64;
        self.plugged.store(plugged * BLOCK, Ordering::Release);
    }

    /// The blocks of a claim; `None` unless it is aligned, not empty and in the region.
    fn range(&self, address: u64, count: u16) -> Option<Range<usize>> {
        let offset = address.checked_sub(self.address()).filter(|offset| offset.is_multiple_of(BLOCK))?;
        let start = usize::try_from(offset / BLOCK).ok()?;
        let end = start.checked_add(count.into())?;
        (count > 0 && end <= self.region.size / HUGE_PAGE).then_some(start..end)
    }

    fn blocks(&self) -> MutexGuard<'_, Vec<bool>> {
        // A panic under the lock has ended the process in release builds (panic=abort).
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state(blocks: &[bool], range: &Range<usize>) -> State {
    let blocks = blocks.get(range.clone()).unwrap_or_default();
    match (blocks.iter().any(|plugged| *plugged), blocks.iter().any(|plugged| !*plugged)) {
        (true, false) => State::Plugged,
        (false, _) => State::Unplugged,
        (true, true) => State::Mixed,
    }
}

/// First out of the guest's reach, then back to the host: in between it could bring pages back.
fn take(memory: &Memory, address: u64, len: u64) -> Result<(), MemoryError> {
    memory.set_accessible(address, len, false)?;
    memory.discard(address, len).map(drop)
}
