//! virtio-fs: the file server runs in this process (virtio 1.3, 5.11).
//!
//!   hiprio queue ─┐              chain                  message                                       system calls
//!   request queue ┴▶ pool of workers ─▶ `message::serve` ─▶ `Server`, `direct` ─▶ `Filter` ─▶ `Passthrough` ─▶ share
//!                                                                                                  └▶ `locks`
//!
//! The virtiofsd crate, as a library, decodes messages and encodes replies; the files behind them are our own (`passthrough`).
//! The jail's root directory is the share, so nothing else can be reached; the filter is the second wall: names, read-only,
//! setuid programs, and arguments that mean nothing. Operations block in the thread that calls them, so the device has threads of
//! its own instead of a place on the device loop.

mod budget;
mod direct;
mod filter;
mod locks;
mod message;
mod metrics;
mod passthrough;
mod patience;
mod pool;
mod slow;
mod strip;
mod watch;

use std::{
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Resource, getrlimit};
use virtio_bindings::{virtio_ids::VIRTIO_ID_FS, virtio_ring::VIRTIO_RING_F_INDIRECT_DESC};

use self::{
    filter::Filter,
    locks::{Locks, Waiters},
    message::FileServer,
    metrics::FsMetrics,
    passthrough::Passthrough,
    pool::{Pool, Workers},
    strip::Strip,
    watch::Watcher,
};
pub use self::{locks::WaiterError, watch::WatcherError};
use super::device::{ActivateError, Activation, VirtioDevice, copy_config};
use crate::threads::ThreadError;

/// hiprio and one request queue, which several workers serve. A request of 1 MiB takes 260 descriptors.
const QUEUE_SIZES: [u16; 2] = [128, 1024];
/// Bytes of the tag in config space, padded with zeros.
const TAG: usize = 36;
/// Descriptors that the guest's files never take, for everything else this process opens.
const RESERVED_FILES: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("the tag of the share has {len} bytes; 1 to {TAG} are allowed, none of them zero")]
    Tag { len: usize },
    #[error(transparent)]
    Workers(#[from] ThreadError),
    #[error(transparent)]
    Waiters(#[from] WaiterError),
    #[error(transparent)]
    Watcher(#[from] WatcherError),
}

#[derive(Debug)]
pub struct Config {
    /// What the guest mounts by; 1 to 36 bytes.
    pub tag: String,
    /// Refuse all that changes anything, whatever the guest's mount says.
    pub read_only: bool,
    /// Take from what the guest writes all that makes a program privileged for whoever runs it: the setuid bit, the setgid bit of
    /// all but directories, and file capabilities.
    pub strip_setuid: bool,
    /// A rootfs, which is what is mounted in a directory of the share's, belongs to one container alone. What the guest has of it
    /// it keeps until it is told that somebody else has changed something.
    pub exclusive_rootfs: bool,
    /// The directory that is served: "/" in the jail.
    pub root: String,
    /// /proc/self/fd of this process.
    pub proc_self_fd: File,
    /// Where the device is to be found when something is taken from the guest.
    pub shares: Arc<Shares>,
    /// Inodes and handles that the guest may have at once. One more is ENFILE, and those that are there go on working.
    pub files: u64,
}

/// The file systems of a machine's fs devices.
#[derive(Debug, Default)]
pub struct Shares(Mutex<Vec<Filter>>);

impl Shares {
    /// Closes all that the guest has below this child of the root, and makes it useless to it. The path itself stays: who
    /// wants it gone takes it away before.
    pub fn revoke(&self, child: &str) {
        for share in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            share.revoke(child.as_bytes());
        }
    }

    fn add(&self, filter: Filter) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(filter);
    }
}

/// The device as the transport sees it.
#[derive(Debug)]
pub struct Fs {
    config_space: [u8; TAG + 4],
    server: Arc<FileServer>,
    locks: Arc<Locks>,
    metrics: Arc<FsMetrics>,
    // Dropped before the workers, who would else never be done, and before those who wait for locks, who would get more work.
    pool: Option<Pool>,
    _waiters: Waiters,
    workers: Workers,
    watcher: Option<Watcher>,
}

impl Fs {
    /// Starts the workers; they wait for `activate`.
    ///
    /// # Errors
    /// The tag is wrong, or a thread could not be started and confined.
    pub fn new(config: Config) -> Result<Self, FsError> {
        let tag = config.tag.as_bytes();
        if tag.is_empty() || tag.len() > TAG || tag.contains(&0) {
            return Err(FsError::Tag { len: tag.len() });
        }
        let mut config_space = [0; TAG + 4];
        config_space[..tag.len()].copy_from_slice(tag);
        let request_queues = (QUEUE_SIZES.len() - 1) as u32;
        config_space[TAG..].copy_from_slice(&request_queues.to_le_bytes());

        let metrics = Arc::new(FsMetrics::default());
        let locks = Arc::<Locks>::default();
        let files = config.files.min(descriptors());
        let group = config.exclusive_rootfs.then(watch::group).flatten();
        let watcher = group.clone().map(Watcher::spawn).transpose()?;
        let (root, proc_self_fd) = (config.root.into(), config.proc_self_fd);
        let files = Passthrough::new(root, proc_self_fd, files, Arc::clone(&locks), group);
        let strip = Strip::new(config.strip_setuid, Arc::clone(&metrics));
        let filter = Filter::new(Arc::new(files), config.read_only, strip, Arc::clone(&metrics));
        config.shares.add(filter.clone());
        let (waiters, workers) = (Waiters::spawn(&locks)?, Workers::spawn(&filter)?);
        let server = Arc::new(FileServer::new(filter, Arc::clone(&metrics)));
        Ok(Self { config_space, server, locks, metrics, pool: None, _waiters: waiters, workers, watcher })
    }
}

/// What this process can give: each inode and each handle holds a descriptor.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit.saturating_sub(RESERVED_FILES).max(limit / 2)
}

impl VirtioDevice for Fs {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.config_space, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if let Some(watcher) = &self.watcher {
            watcher.tell(Some(Arc::clone(&activation.interrupt)));
        }
        let pool = Pool::start(activation, Arc::clone(&self.server), &self.workers)
            .map_err(|error| ActivateError { device: "fs", source: Box::new(error) })?;
        self.pool = Some(pool);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.tell(None);
        }
        // Waits for requests in flight: they write to guest memory. So do those that wait for locks, when they are answered.
        self.pool = None;
        self.locks.end_all();
        self.server.forget_all();
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.metrics.values()
    }
}

#[cfg(test)]
mod tests;
