//! The file behind a disk, and what each request does with it.
//!
//! The host's kernel copies from and to guest memory. Data is written through the host's page cache, and is safe when a flush
//! was answered; for a driver that does not flush, each write is safe by itself (virtio 1.2, 5.2.6.2). What a request may reach
//! is decided here alone: whole sectors of the disk, and no change of one that is read-only.

use std::{
    fs::File,
    io,
    ops::Deref,
    os::fd::{AsRawFd as _, RawFd},
    sync::Arc,
};

use rustix::{
    fs::{FallocateFlags, fallocate, fdatasync},
    io::Errno,
};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::DescriptorChain;
use vm_memory::{ByteValued, Bytes as _, GuestMemoryMmap};

use super::{
    SERIAL,
    metrics::BlkMetrics,
    request::{Operation, Parts, Request},
};
use crate::memory::Memory;

/// The unit of positions and lengths, whatever the disk's blocks are.
pub(super) const SECTOR: u64 = 512;
/// Sectors of one range that is discarded or zeroed: 128 MiB, which a slow disk may really write.
pub(super) const RANGE_SECTORS: u32 = (128 << 20) / SECTOR as u32;
/// `struct virtio_blk_discard_write_zeroes`: sector, number of sectors, flags. One for each request.
const RANGE: usize = 16;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) file: File,
    pub(super) sectors: u64,
    pub(super) read_only: bool,
    pub(super) serial: [u8; SERIAL],
    pub(super) metrics: Arc<BlkMetrics>,
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It is not known, or not in this form.
    Unsupported,
    /// It is wrong in itself.
    Malformed,
    ReadOnly,
    /// The host's kernel has not done it.
    Failed(Errno),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// When a write is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// When the driver has flushed it.
    Back,
    /// When it is answered.
    Through,
}

impl Cache {
    /// As the driver takes it that has acknowledged these features.
    pub(super) fn of(features: u64) -> Self {
        if features & 1 << VIRTIO_BLK_F_FLUSH == 0 { Self::Through } else { Self::Back }
    }
}

impl Disk {
    /// Serves one request: the used length of its chain.
    pub(super) fn serve<M>(&self, memory: &Memory, chain: DescriptorChain<M>, cache: Cache) -> u32
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        self.metrics.requests.increment();
        let Some(request) = Request::of(memory, chain) else {
            self.metrics.malformed.increment();
            return 0;
        };
        let status = request.status;
        let (code, written) = match self.execute(memory, request, cache) {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(refused) => {
                self.metrics.errors.increment();
                if refused == Refused::ReadOnly {
                    self.metrics.read_only.increment();
                }
                let unsupported = refused == Refused::Unsupported;
                (if unsupported { VIRTIO_BLK_S_UNSUPP } else { VIRTIO_BLK_S_IOERR }, 0)
            }
        };
        match memory.write_obj(code as u8, status) {
            // At most what a request may ask for, which is far below 4 GiB.
            Ok(()) => written as u32 + 1,
            Err(_) => 0,
        }
    }

    /// The bytes that were written to guest memory.
    fn execute(&self, memory: &Memory, mut request: Request, cache: Cache) -> Result<usize, Refused> {
        let metrics = &self.metrics;
        match request.operation {
            Operation::Read => {
                let offset = self.offset(request.sector, request.wanted.bytes())?;
                let read = self.transfer(memory, &request.wanted, offset, Direction::Read)?;
                metrics.read_bytes.add(read as u64);
                Ok(read)
            }
            Operation::Write => {
                self.check_writable()?;
                let offset = self.offset(request.sector, request.given.bytes())?;
                let flags = if cache == Cache::Through { libc::RWF_DSYNC } else { 0 };
                let written = self.transfer(memory, &request.given, offset, Direction::Write(flags))?;
                metrics.written_bytes.add(written as u64);
                Ok(0)
            }
            Operation::Flush => {
                metrics.flushes.increment();
                fdatasync(&self.file)?;
                Ok(0)
            }
            Operation::Serial => request.wanted.fill(memory, &self.serial).ok_or(Refused::Malformed),
            operation @ (Operation::Discard | Operation::WriteZeroes) => {
                self.check_writable()?;
                self.clear(memory, &mut request.given, operation == Operation::WriteZeroes)?;
                if cache == Cache::Through {
                    fdatasync(&self.file)?;
                }
                Ok(0)
            }
            Operation::Unknown => Err(Refused::Unsupported),
        }
    }

    fn check_writable(&self) -> Result<(), Refused> {
        if self.read_only { Err(Refused::ReadOnly) } else { Ok(()) }
    }

    /// Where whole sectors of the disk begin, in bytes.
    fn offset(&self, sector: u64, bytes: usize) -> Result<u64, Refused> {
        let bytes = bytes as u64;
        let end = sector.checked_add(bytes / SECTOR).ok_or(Refused::Malformed)?;
        if !bytes.is_multiple_of(SECTOR) || end > self.sectors {
            return Err(Refused::Malformed);
        }
        // Below what a file can be, as the disk's end is.
        Ok(sector * SECTOR)
    }

    /// Moves all of `parts`, or fails.
    fn transfer(
        &self,
        memory: &Memory,
        parts: &Parts,
        offset: u64,
        direction: Direction,
    ) -> Result<usize, Refused> {
        let mut vectors = parts.vectors(memory).ok_or(Refused::Malformed)?;
        let mut left = vectors.as_mut_slice();
        let mut done = 0;
        while !left.is_empty() {
            // SAFETY: each vector is a range of guest memory, checked by `Parts::vectors`, or the rest of one. Guest memory stays
            // mapped as long as `memory`, and no reference to it exists. Where it is not accessible the kernel answers EFAULT.
            let moved = match unsafe { direction.go(self.file.as_raw_fd(), left, offset + done as u64) } {
                Ok(0) => return Err(Refused::Failed(Errno::IO)),
                Ok(moved) => moved,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            done += moved;
            left = behind(left, moved);
        }
        Ok(done)
    }

    /// Gives a range back to the file's filesystem, or fills it with zeros.
    fn clear(&self, memory: &Memory, given: &mut Parts, zeroes: bool) -> Result<(), Refused> {
        let mut range = [0_u64; RANGE / 8];
        if given.bytes() != RANGE || !given.take_first(memory, ByteValued::as_mut_slice(&mut range)) {
            return Err(Refused::Malformed);
        }
        let [sector, rest] = range.map(u64::from_le);
        let (count, flags) = (rest as u32, (rest >> 32) as u32);
        let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        // 5.2.6.2: flags that are not known, and an unmap where it says nothing.
        if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 || unmap && !zeroes {
            return Err(Refused::Unsupported);
        }
        if count > RANGE_SECTORS {
            return Err(Refused::Malformed);
        }
        let bytes = u64::from(count) * SECTOR;
        let offset = self.offset(sector, bytes as usize)?;
        if bytes == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        let ways: &[FallocateFlags] = match (zeroes, unmap) {
            (false, _) => &[hole],
            (true, true) => &[hole, zero],
            (true, false) => &[zero],
        };
        let done = ways
            .iter()
            .map(|way| fallocate(&self.file, *way, offset, bytes))
            .find(|done| *done != Err(Errno::OPNOTSUPP));
        match done {
            Some(done) => Ok(done?),
            // A hint, which means nothing to this file.
            None if !zeroes => Ok(()),
            // The driver writes the zeros itself.
            None => Err(Refused::Unsupported),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Read,
    /// With these flags of pwritev2(2).
    Write(libc::c_int),
}

impl Direction {
    /// # Safety
    /// Each of `vectors` is memory that stays mapped during the call, and to which no reference exists.
    unsafe fn go(self, file: RawFd, vectors: &[libc::iovec], offset: u64) -> Result<usize, Errno> {
        // `Blk::new` has seen to it that positions in the disk are positions in a file, and a request has few parts.
        let (offset, count) = (offset as libc::off_t, vectors.len() as libc::c_int);
        // SAFETY: the caller's duty for what is behind `vectors`; the kernel reads no more of them than their number.
        let moved = unsafe {
            match self {
                Self::Read => libc::preadv2(file, vectors.as_ptr(), count, offset, 0),
                Self::Write(flags) => libc::pwritev2(file, vectors.as_ptr(), count, offset, flags),
            }
        };
        usize::try_from(moved)
            .map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// What is left of vectors behind their first `bytes`.
fn behind(vectors: &mut [libc::iovec], mut bytes: usize) -> &mut [libc::iovec] {
    let mut whole = 0;
    for vector in vectors.iter() {
        match bytes.checked_sub(vector.iov_len) {
            Some(left) => bytes = left,
            None => break,
        }
        whole += 1;
    }
    let left = vectors.get_mut(whole..).unwrap_or_default();
    if let Some(first) = left.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(bytes);
        first.iov_len -= bytes;
    }
    left
}
