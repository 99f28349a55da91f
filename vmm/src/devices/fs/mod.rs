//! virtio-fs: the file server runs in this process, by the virtiofsd crate as a library (virtio 1.3, 5.11).
//!
//!   hiprio queue ─┐                 chain                    FUSE message
//!   request queue ┴▶ pool of workers ────▶ `message::serve` ────▶ `Server` ─▶ `Filter` ─▶ `PassthroughFs` ─▶ share
//!
//! The jail's root directory is the share, so the library can reach nothing else; the filter is the second wall, in
//! front of the library: names, read-only, setuid programs, and arguments that the library would stumble over. The
//! library blocks in the thread that calls it, so the device has threads of its own instead of a place on the device loop.

mod filter;
mod known;
mod message;
mod metrics;
mod pool;
mod slow;
mod strip;

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Resource, getrlimit};
use virtio_bindings::{virtio_ids::VIRTIO_ID_FS, virtio_ring::VIRTIO_RING_F_INDIRECT_DESC};
use virtiofsd::passthrough::{CachePolicy, InodeFileHandlesMode, NegotiationMode, PassthroughFs};

pub use self::pool::WorkerError;
use self::{
    filter::Filter,
    message::FileServer,
    metrics::FsMetrics,
    pool::{Pool, Workers},
    strip::Strip,
};
use super::device::{ActivateError, Activation, VirtioDevice, copy_config};

/// hiprio and one request queue, which several workers serve. A request of 1 MiB takes 260 descriptors.
const QUEUE_SIZES: [u16; 2] = [128, 1024];
/// Bytes of the tag in config space, padded with zeros.
const TAG: usize = 36;
/// How long the guest may keep names and attributes without asking: what is changed on the host's side is seen
/// after this at the latest.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Descriptors that the guest's files never take, for everything else this process opens.
const RESERVED_FILES: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("the tag of the share has {len} bytes; 1 to {TAG} are allowed, none of them zero")]
    Tag { len: usize },
    #[error("start the file server")]
    Server { source: io::Error },
    #[error(transparent)]
    Workers(#[from] WorkerError),
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
    metrics: Arc<FsMetrics>,
    // Dropped before the workers, who would else never be done.
    pool: Option<Pool>,
    workers: Workers,
}

impl Fs {
    /// Starts the workers; they wait for `activate`.
    ///
    /// # Errors
    /// The tag is wrong, the library does not start, or a worker could not be started and confined.
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
        let files = passthrough(config.root, config.proc_self_fd, config.files)
            .map_err(|source| FsError::Server { source })?;
        let strip = Strip::new(config.strip_setuid, Arc::clone(&metrics));
        let filter = Filter::new(files, config.read_only, strip, Arc::clone(&metrics));
        config.shares.add(filter.clone());
        let server = Arc::new(FileServer::new(filter, Arc::clone(&metrics)));
        Ok(Self { config_space, server, metrics, pool: None, workers: Workers::spawn()? })
    }
}

fn passthrough(root: String, proc_self_fd: File, files: u64) -> io::Result<PassthroughFs> {
    PassthroughFs::new(virtiofsd::passthrough::Config {
        root_dir: root,
        entry_timeout: TIMEOUT,
        attr_timeout: TIMEOUT,
        cache_policy: CachePolicy::Auto,
        xattr: true,
        announce_submounts: true,
        // Or a new file could come with an extended attribute that `Filter::setxattr` refuses.
        security_label: NegotiationMode::Never,
        // Handles would need CAP_DAC_READ_SEARCH outside of the user namespace.
        inode_file_handles: InodeFileHandlesMode::Never,
        proc_sfd_rawfd: Some(proc_self_fd),
        guest_fd_limit: files.min(descriptors()),
        ..Default::default()
    })
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
        let pool = Pool::start(activation, Arc::clone(&self.server), &self.workers)
            .map_err(|error| ActivateError { device: "fs", source: Box::new(error) })?;
        self.pool = Some(pool);
        Ok(())
    }

    fn reset(&mut self) {
        // Waits for requests in flight: they write to guest memory.
        self.pool = None;
        self.server.forget_all();
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.metrics.values()
    }
}

#[cfg(test)]
mod tests;
