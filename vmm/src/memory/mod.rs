//! Guest memory: one anonymous private mapping, aligned so that the host can back it with 2 MiB pages.
//!
//!   reserve size + 2 MiB (PROT_NONE) ─▶ map what the boot has at the first 2 MiB boundary ─▶ `advise`
//!
//!   guest:    0 … low … 3 GiB   slots, APIC   4 GiB … high …   128 MiB boundary … hotplug …
//!   mapping:  low, high, hotplug, one after the other; a region of size 0 does not exist
//!
//! A `Memory` is a typed view and a share in the mapping, so the mapping outlives every view of it. Views differ
//! only in the bitmap type that vm-memory wants: none for our own devices, another for the file server.
//! The guest may write at any moment: readers get volatile slices and copies, never references.
//!
//! The hotplug region is there for the guest block by block (`set_accessible`, by the virtio-mem device). What is not
//! has no access rights in this process, which KVM respects: a guest that touches it ends itself, and so does one that
//! points a device there. KVM's own memory slots could not say it: they would have to be as small as a block.

use std::{io, ops::Deref, ptr, sync::Arc};

use bulkhead_protocol::vmm::HugePages;
use vm_memory::{
    GuestAddress, GuestMemory as _, GuestMemoryMmap, GuestRegionMmap,
    bitmap::Bitmap,
    mmap::{MmapRegionBuilder, MmapRegionError},
};

/// The x86 large page: host address and guest address must agree modulo this for KVM to use one.
pub const HUGE_PAGE: usize = 2 << 20;
/// Low memory ends here at the latest: the rest of the first 4 GiB is for the slots and interrupt controllers.
const LOW_MAX: usize = 3 << 30;
const HIGH: u64 = 4 << 30;
/// Linux plugs memory in blocks of this size; a region that is aligned to it wastes none.
pub const MEMORY_BLOCK: usize = 128 << 20;
const PAGE: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("map {size} bytes of guest memory")]
    Map { size: usize, source: io::Error },
    #[error("describe {size} bytes of guest memory")]
    Region { size: usize, source: MmapRegionError },
    #[error("guest memory of {size} bytes has regions that overlap")]
    Collection { size: usize },
    #[error("{len:#x} bytes at {address:#x} are not in one region of guest memory")]
    Range { address: u64, len: u64 },
    #[error("{what} {len:#x} bytes of guest memory at {address:#x}")]
    Advise { what: &'static str, address: u64, len: u64, source: io::Error },
}

/// A part of guest memory that is contiguous for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub guest: u64,
    pub size: usize,
    /// Where it starts in the mapping.
    offset: usize,
}

/// Which parts there are; no part has size 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    boot: Vec<Region>,
    hotplug: Option<Region>,
    size: usize,
}

impl Layout {
    /// `None` when the sizes add up to nothing or to more than an address can say.
    fn new(boot: usize, hotplug: usize) -> Option<Self> {
        let boot = boot.checked_next_multiple_of(HUGE_PAGE).filter(|&boot| boot > 0)?;
        let hotplug = hotplug.checked_next_multiple_of(MEMORY_BLOCK)?;
        let low = Region { guest: 0, size: boot.min(LOW_MAX), offset: 0 };
        let high = Region { guest: HIGH, size: boot - low.size, offset: low.size };
        let above = HIGH.checked_add(high.size as u64)?.checked_next_multiple_of(MEMORY_BLOCK as u64)?;
        let hotplug = Region { guest: above, size: hotplug, offset: boot };
        let there = |region: &Region| region.size > 0;
        Some(Self {
            boot: [low, high].into_iter().filter(there).collect(),
            size: boot.checked_add(hotplug.size)?,
            hotplug: Some(hotplug).filter(there),
        })
    }

    fn regions(&self) -> impl Iterator<Item = Region> {
        self.boot.iter().copied().chain(self.hotplug)
    }
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
    /// Guest memory that is there from the start; `size` is rounded up to a multiple of 2 MiB.
    ///
    /// # Errors
    /// The size is 0 or too large, or the host has no addresses for it.
    pub fn anonymous(size: usize) -> Result<Self, MemoryError> {
        Self::growing(size, 0)
    }

    /// The same with a region of `hotplug` bytes, rounded up to whole memory blocks, of which nothing is accessible.
    ///
    /// # Errors
    /// As of `anonymous`.
    pub fn growing(boot: usize, hotplug: usize) -> Result<Self, MemoryError> {
        let size = boot.saturating_add(hotplug);
        let layout = Layout::new(boot, hotplug)
            .ok_or_else(|| MemoryError::Map { size, source: io::ErrorKind::InvalidInput.into() })?;
        Self::of(Arc::new(Mapping::anonymous(layout)?))
    }
}

impl<B: Bitmap + Default> Memory<B> {
    fn of(mapping: Arc<Mapping>) -> Result<Self, MemoryError> {
        let regions = mapping.layout.regions().map(|region| region_of(&mapping, region));
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        let view = GuestMemoryMmap::from_regions(regions)
            .map_err(|_| MemoryError::Collection { size: mapping.layout.size })?;
        Ok(Self { shared: Arc::new(Shared { view, mapping }) })
    }
}

fn region_of<B: Bitmap + Default>(
    mapping: &Mapping,
    Region { guest, size, offset }: Region,
) -> Result<GuestRegionMmap<B>, MemoryError> {
    let builder = MmapRegionBuilder::<B>::new(size)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    let address = mapping.address.wrapping_byte_add(offset);
    // SAFETY: [address, address + size) is a part of what `Mapping::anonymous` mapped, since the layout's regions lie
    // in it one after the other; the region does not own it, and it stays mapped for as long as the view exists,
    // because `Shared` holds both. Where access has been taken away an access is a fault, not undefined.
    let region = unsafe { builder.with_raw_mmap_pointer(address.cast()) }
        .build()
        .map_err(|source| MemoryError::Region { size, source })?;
    GuestRegionMmap::new(region, GuestAddress(guest)).ok_or(MemoryError::Collection { size })
}

impl<B: Bitmap> Memory<B> {
    /// The same memory with another bitmap type.
    ///
    /// # Errors
    /// vm-memory refuses the regions, which it took for the first view.
    pub fn view<C: Bitmap + Default>(&self) -> Result<Memory<C>, MemoryError> {
        Memory::of(Arc::clone(&self.shared.mapping))
    }

    /// Bytes of guest memory from address 0, to where it ends or the hole below 4 GiB begins.
    pub fn low(&self) -> usize {
        self.boot_regions().first().map_or(0, |low| low.size)
    }

    /// The regions that are there from the start, by address.
    pub fn boot_regions(&self) -> &[Region] {
        &self.shared.mapping.layout.boot
    }

    pub fn hotplug(&self) -> Option<Region> {
        self.shared.mapping.layout.hotplug
    }

    /// All regions, and where each is in this process.
    pub fn regions(&self) -> impl Iterator<Item = (Region, u64)> {
        let start = self.shared.mapping.address as u64;
        self.shared.mapping.layout.regions().map(move |region| (region, start + region.offset as u64))
    }

    /// Says how the host may back all of it. Best effort: a host kernel without transparent huge pages answers EINVAL,
    /// and small pages work too.
    pub fn advise(&self, huge_pages: HugePages) {
        let advice = match huge_pages {
            HugePages::Always => libc::MADV_HUGEPAGE,
            HugePages::Never => libc::MADV_NOHUGEPAGE,
        };
        let mapping = &self.shared.mapping;
        // SAFETY: the range is all of the mapping, which `self` keeps mapped; the advice changes no contents.
        unsafe { libc::madvise(mapping.address, mapping.layout.size, advice) };
    }

    /// Gives the whole pages of a range back to the host; the guest finds zeros there. The range may be the guest's
    /// claim.
    ///
    /// # Errors
    /// The range does not lie in one region.
    pub fn discard(&self, address: u64, len: u64) -> Result<u64, MemoryError> {
        let host = self.host(address, len)?;
        // Pages agree: every region is aligned on both sides.
        let skip = address.next_multiple_of(PAGE) - address;
        let len = len.saturating_sub(skip) / PAGE * PAGE;
        if len > 0 {
            let what = "give back";
            // SAFETY: the range lies in the mapping, by `host`, and stays mapped. Its contents turn to zeros, as if
            // the guest had written them, and nothing here relies on what guest memory holds.
            let done = unsafe {
                libc::madvise((host + skip as usize) as *mut libc::c_void, len as usize, libc::MADV_DONTNEED)
            };
            if done != 0 {
                return Err(MemoryError::Advise { what, address, len, source: io::Error::last_os_error() });
            }
        }
        Ok(len)
    }

    /// Lets the guest have a range of whole pages, or takes it away. Contents stay: see `discard`.
    ///
    /// # Errors
    /// The range does not lie in one region, or the host has no room for another mapping (ENOMEM).
    pub fn set_accessible(&self, address: u64, len: u64, accessible: bool) -> Result<(), MemoryError> {
        let host = self.host(address, len)? as *mut libc::c_void;
        let (what, rights) = if accessible {
            ("allow", libc::PROT_READ | libc::PROT_WRITE)
        } else {
            ("forbid", libc::PROT_NONE)
        };
        // SAFETY: the range lies in the mapping, by `host`, and stays mapped. Accesses go through vm-memory's
        // volatile accessors; one in a range without rights is a fault that ends the process.
        if unsafe { libc::mprotect(host, len as usize, rights) } != 0 {
            return Err(MemoryError::Advise { what, address, len, source: io::Error::last_os_error() });
        }
        Ok(())
    }

    /// Where a range of guest addresses is in this process.
    fn host(&self, address: u64, len: u64) -> Result<usize, MemoryError> {
        let mapping = &self.shared.mapping;
        let place = |region: Region| {
            let start = address.checked_sub(region.guest)?;
            let end = start.checked_add(len)?;
            (end <= region.size as u64).then(|| mapping.address as usize + region.offset + start as usize)
        };
        mapping.layout.regions().find_map(place).ok_or(MemoryError::Range { address, len })
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

/// A range of guest memory as the kernel takes it. `None` when a part of the range is no memory, or when it spans two regions.
pub(crate) fn guest_part(memory: &GuestMemoryMmap, address: GuestAddress, len: usize) -> Option<libc::iovec> {
    let slice = memory.get_slice(address, len).ok()?;
    Some(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: len })
}

#[derive(Debug)]
struct Mapping {
    address: *mut libc::c_void,
    layout: Layout,
    reserved: *mut libc::c_void,
    reserved_size: usize,
}

// SAFETY: the addresses are plain numbers here; whoever reads or writes behind them goes through vm-memory's
// volatile accessors, which may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes the struct.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn anonymous(layout: Layout) -> Result<Self, MemoryError> {
        let size = layout.size;
        let boot = layout.boot.iter().map(|region| region.size).sum();
        let failed = || MemoryError::Map { size, source: io::Error::last_os_error() };
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let Some(reserved_size) = size.checked_add(HUGE_PAGE) else {
            return Err(MemoryError::Map { size, source: io::ErrorKind::InvalidInput.into() });
        };
        // SAFETY: a null address lets the kernel choose, so no mapping of ours is replaced.
        let reserved =
            unsafe { libc::mmap(ptr::null_mut(), reserved_size, libc::PROT_NONE, anonymous, -1, 0) };
        if reserved == libc::MAP_FAILED {
            return Err(failed());
        }
        let mut mapping = Self { address: reserved, layout, reserved, reserved_size };
        let aligned = (reserved as usize).next_multiple_of(HUGE_PAGE);
        // What can be hotplugged stays as it was reserved: without access, and free of charge for the host.
        // SAFETY: aligned < reserved + 2 MiB, so [aligned, aligned + size) lies in the reservation made above,
        // which nothing else uses; replacing the first part of it is the purpose.
        let address = unsafe {
            libc::mmap(
                aligned as *mut libc::c_void,
                boot,
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
        // Nor is it merged with that of other processes, which would tell guests of each other's pages by the time of a
        // write: the caller may have been told to merge all it has (PR_SET_MEMORY_MERGE).
        // SAFETY: the range is the mapping just made and the rest of its reservation; the advice changes no contents.
        unsafe { libc::madvise(address, size, libc::MADV_UNMERGEABLE) };
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
mod tests;
