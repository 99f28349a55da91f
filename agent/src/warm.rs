//! Maps this program's code ahead of its use.
//!
//! The pages are in memory, for the initramfs is; but the kernel maps them into a process a few at a time, by a fault each.

use std::ptr;

/// Asks the kernel to map the code and the constants of this program at once. It is a hint: nothing is changed by it, and
/// nothing is missing without it.
pub fn map_own_code() {
    // SAFETY: `map` has the signature that is asked for, and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(map), ptr::null_mut()) };
}

/// Called for the program itself first; the end is told by an answer that is not 0.
unsafe extern "C" fn map(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library gives a valid pointer for the duration of the call, and `dlpi_phdr` has `dlpi_phnum` entries,
    // which lie in the program's own constants.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (base + header.p_vaddr) & !(PAGE - 1);
        let end = base + header.p_vaddr + header.p_memsz;
        // SAFETY: the range is a mapping of this program that lasts as long as the process. MADV_POPULATE_READ (madvise(2))
        // only reads; an older kernel refuses it.
        unsafe {
            libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_POPULATE_READ)
        };
    }
    1
}

const PAGE: u64 = 4096;

#[cfg(test)]
mod tests;
