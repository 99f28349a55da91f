//! A disk (virtio 1.2, 5.2): a regular file or a block device of the host, which arrives as a descriptor.
//!
//!   kick ──▶ pool of workers ──chain──▶ `Request` ──▶ `Disk` ──preadv2, pwritev2, fdatasync, fallocate──▶ file
//!
//! The data goes between the file and guest memory without a copy here. One queue, which several workers serve, so that a
//! read does not wait for a flush. Nothing is concluded from what is on the disk: it is raw, and no other format exists here.
//! A disk that is read-only refuses what would change it by itself: the feature bit is for the driver to know.
//!
//! io_uring would save a system call here and there, and is no choice: its operations pass by the filters of system calls, and
//! many hosts forbid it.

mod disk;
mod metrics;
mod pool;
mod request;

use std::{fs::File, os::fd::OwnedFd, sync::Arc};

use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
        VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
    virtio_ring::VIRTIO_RING_F_INDIRECT_DESC,
};

pub use self::pool::{Pool, WorkerError, Workers};
use self::{
    disk::{Disk, RANGE_SECTORS, SECTOR},
    metrics::BlkMetrics,
    pool::Lane,
    request::{SEGMENT_BYTES, SEGMENTS},
};
use super::device::{ActivateError, Activation, VirtioDevice, copy_config};

/// A chain has at most as many parts (virtio 1.2, 2.7.5.3.1), header and status included: enough for Linux's largest request of
/// 1280 KiB in pages that lie apart.
const QUEUE_SIZE: u16 = 512;
/// Bytes of the serial number, padded with zeros.
const SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;
/// What may be the unit of a disk: no guest has pages that are smaller than the largest.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=4096;
/// `struct virtio_blk_config`, without what belongs to zoned disks.
const CONFIG: usize = 60;

#[derive(Debug, thiserror::Error)]
pub enum BlkError {
    #[error("a disk without a sector")]
    Empty,
    #[error("a disk of {0} sectors of 512 bytes is larger than a file can be")]
    TooLarge(u64),
    #[error("a block of {0} bytes; a power of two from 512 to 4096 is allowed")]
    BlockSize(u32),
    #[error("the serial number of a disk has {len} bytes; at most {SERIAL} are allowed, none of them zero")]
    Serial { len: usize },
}

/// A checked `vmm::Device::Blk`, with its descriptor.
#[derive(Debug)]
pub struct Config {
    pub file: OwnedFd,
    /// Of 512 bytes each.
    pub sectors: u64,
    /// Bytes.
    pub block_size: u32,
    pub read_only: bool,
    pub serial: String,
}

/// The device as the transport sees it.
#[derive(Debug)]
pub struct Blk {
    config_space: [u8; CONFIG],
    disk: Arc<Disk>,
    pool: Pool,
    metrics: Arc<BlkMetrics>,
    lane: Option<Lane>,
}

impl Blk {
    /// # Errors
    /// A value is out of its range.
    pub fn new(config: Config, pool: Pool) -> Result<Self, BlkError> {
        let Config { file, sectors, block_size, read_only, serial } = config;
        if sectors == 0 {
            return Err(BlkError::Empty);
        }
        if sectors > i64::MAX as u64 / SECTOR {
            return Err(BlkError::TooLarge(sectors));
        }
        if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
            return Err(BlkError::BlockSize(block_size));
        }
        let mut padded = [0; SERIAL];
        match padded.get_mut(..serial.len()) {
            Some(place) if !serial.contains('\0') => place.copy_from_slice(serial.as_bytes()),
            _ => return Err(BlkError::Serial { len: serial.len() }),
        }
        let metrics = Arc::<BlkMetrics>::default();
        let disk = Disk {
            file: File::from(file),
            sectors,
            read_only,
            serial: padded,
            metrics: Arc::clone(&metrics),
        };
        let config_space = config_space(sectors, block_size);
        Ok(Self { config_space, disk: Arc::new(disk), pool, metrics, lane: None })
    }
}

/// What the driver must know of the disk and may ask of it at once.
fn config_space(sectors: u64, block_size: u32) -> [u8; CONFIG] {
    let mut config = [0; CONFIG];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(place) = config.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &sectors.to_le_bytes());
    let alignment = block_size / SECTOR as u32;
    let words = [
        // size_max, seg_max
        (8, SEGMENT_BYTES),
        (12, SEGMENTS as u32),
        // blk_size
        (20, block_size),
        // max_discard_sectors, max_discard_seg, discard_sector_alignment
        (36, RANGE_SECTORS),
        (40, 1),
        (44, alignment),
        // max_write_zeroes_sectors, max_write_zeroes_seg
        (48, RANGE_SECTORS),
        (52, 1),
    ];
    for (offset, word) in words {
        put(offset, &word.to_le_bytes());
    }
    // write_zeroes_may_unmap
    put(56, &[1]);
    config
}

impl VirtioDevice for Blk {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let always = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_RING_F_INDIRECT_DESC,
        ];
        let changes: &[u32] = if self.disk.read_only {
            &[VIRTIO_BLK_F_RO]
        } else {
            &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]
        };
        always.iter().chain(changes).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.config_space, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let lane = self
            .pool
            .serve(activation, &self.disk)
            .map_err(|error| ActivateError { device: "blk", source: Box::new(error) })?;
        self.lane = Some(lane);
        Ok(())
    }

    fn reset(&mut self) {
        // Waits for requests in flight: they use guest memory.
        self.lane = None;
    }

    fn metrics(&self) -> Vec<(&'static str, u64)> {
        self.metrics.values()
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
