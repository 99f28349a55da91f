//! Guest memory: one anonymous private mapping, aligned so that the host can back it with 2 MiB pages.
//!
//!   reserve size + 2 MiB (PROT_NONE) ─▶ map size at the first 2 MiB boundary ─▶ MADV_HUGEPAGE
//!
//! A `Memory` is a typed view and a share in the mapping, so the mapping outlives every view of it. Views differ
//! only in the bitmap type that vm-memory wants: none for our own devices, another for the file server.
//! The guest may write at any moment: readers get volatile slices and copies, never references.

use std::{io, ops::Deref, ptr, sync::Arc};

use vm_memory::{
    GuestAddress, GuestMemoryMmap, GuestRegionMmap,
    bitmap::Bitmap,
    mmap::{MmapRegionBuilder, MmapRegionError},
};

/// The x86 large page: host address and guest address must agree modulo this for KVM to use one.
pub const HUGE_PAGE: usize = 2 << 20;

#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("map {size} bytes of guest memory")]
    Map { size: usize, source: io::Error },
    #[error("describe {size} bytes of guest memory")]
    Region { size: usize, source: MmapRegionError },
    #[error("guest memory of {size} bytes is not one region")]
    Collection { size: usize },
}

/// A view of guest memory; clones are cheap and share the mapping.
#[derive(Debug)]
pub struct Memory<B: Bitmap = ()> {
    shared: Arc<Shared<B>>,
}

#[derive(Debug)]
struct Shared<B: Bitmap> {
    // Dropped before `mapping`: fields drop in order.
    view: GuestMemoryMmap<B>,
    mapping: Arc<Mapping>,
}

impl Memory {
    /// Guest memory from address 0 to `size`, a multiple of 2 MiB after rounding up.
    pub fn anonymous(size: usize) -> Result<Self, MemoryError> {
        let mapping = Mapping::anonymous(size.next_multiple_of(HUGE_PAGE))?;
        Self::of(Arc::new(mapping))
    }
}

impl<B: Bitmap + Default> Memory<B> {
    fn of(mapping: Arc<Mapping>) -> Result<Self, MemoryError> {
        let size = mapping.size;
        let builder = MmapRegionBuilder::<B>::new(size)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: [address, address + size) is mapped read-write by `Mapping::anonymous`; the region does not own
        // it, and it stays mapped for as long as the view exists, because `Shared` holds both.
        let region = unsafe { builder.with_raw_mmap_pointer(mapping.address.cast()) }
            .build()
            .map_err(|source| MemoryError::Region { size, source })?;
        let region = GuestRegionMmap::new(region, GuestAddress(0)).ok_or(MemoryError::Collection { size })?;
        let view =
            GuestMemoryMmap::from_regions(vec![region]).map_err(|_| MemoryError::Collection { size })?;
        Ok(Self { shared: Arc::new(Shared { view, mapping }) })
    }
}

impl<B: Bitmap> Memory<B> {
    /// The same memory with another bitmap type.
    pub fn view<C: Bitmap + Default>(&self) -> Result<Memory<C>, MemoryError> {
        Memory::of(Arc::clone(&self.shared.mapping))
    }

    /// Bytes of guest memory.
    pub fn size(&self) -> usize {
        self.shared.mapping.size
    }

    /// Where guest address 0 is in this process.
    pub fn host_address(&self) -> u64 {
        self.shared.mapping.address as u64
    }
}

impl<B: Bitmap> Clone for Memory<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B: Bitmap> Deref for Memory<B> {
    type Target = GuestMemoryMmap<B>;

    fn deref(&self) -> &Self::Target {
        &self.shared.view
    }
}

#[derive(Debug)]
struct Mapping {
    address: *mut libc::c_void,
    size: usize,
    reserved: *mut libc::c_void,
    reserved_size: usize,
}

// SAFETY: the addresses are plain numbers here; whoever reads or writes behind them goes through vm-memory's
// volatile accessors, which may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes the struct.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn anonymous(size: usize) -> Result<Self, MemoryError> {
        let failed = || MemoryError::Map { size, source: io::Error::last_os_error() };
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let Some(reserved_size) = size.checked_add(HUGE_PAGE).filter(|_| size > 0) else {
            return Err(MemoryError::Map { size, source: io::ErrorKind::InvalidInput.into() });
        };
        // SAFETY: a null address lets the kernel choose, so no mapping of ours is replaced.
        let reserved =
            unsafe { libc::mmap(ptr::null_mut(), reserved_size, libc::PROT_NONE, anonymous, -1, 0) };
        if reserved == libc::MAP_FAILED {
            return Err(failed());
        }
        let mut mapping = Self { address: reserved, size, reserved, reserved_size };
        let aligned = (reserved as usize).next_multiple_of(HUGE_PAGE);
        // SAFETY: aligned < reserved + 2 MiB, so [aligned, aligned + size) lies in the reservation made above,
        // which nothing else uses; replacing that part of it is the purpose.
        let address = unsafe {
            libc::mmap(
                aligned as *mut libc::c_void,
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                anonymous | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(failed());
        }
        mapping.address = address;
        // Best effort: a host kernel without transparent huge pages answers EINVAL, and small pages work too.
        // SAFETY: the range is the mapping just made; the advice changes no contents.
        unsafe { libc::madvise(address, size, libc::MADV_HUGEPAGE) };
        // Guest memory has no place in a core file.
        // SAFETY: as above.
        unsafe { libc::madvise(address, size, libc::MADV_DONTDUMP) };
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the reservation was made by `anonymous` and contains the mapping inside it; views hold a share in
        // this struct, so no view is left.
        unsafe { libc::munmap(self.reserved, self.reserved_size) };
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
