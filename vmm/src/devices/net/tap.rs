//! The tap: one frame for each `readv` and `writev`, a virtio-net header in front.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{error::NetError, frame::HEADER};

#[derive(Debug)]
pub(super) struct Tap {
    fd: OwnedFd,
    uso: bool,
}

impl Tap {
    pub(super) fn new(fd: OwnedFd) -> Result<Self, NetError> {
        let failed = |step| move |source| NetError::Tap { step, source };
        rustix::io::ioctl_fionbio(&fd, true)
            .map_err(|errno| failed("make the tap non-blocking")(errno.into()))?;
        let header = HEADER as libc::c_int;
        // SAFETY: the operation reads one int, which `header` is, and changes the tap alone.
        let set = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const header) };
        if set != 0 {
            return Err(failed("set the header size of the tap")(io::Error::last_os_error()));
        }
        let mut tap = Self { fd, uso: true };
        // UDP segmentation is there since Linux 6.2.
        tap.uso = tap.set_offloads(libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok();
        Ok(tap)
    }

    /// Frames of any other descriptor that keeps message boundaries.
    #[cfg(test)]
    pub(super) fn over(fd: OwnedFd) -> Self {
        Self { fd, uso: false }
    }

    pub(super) fn has_uso(&self) -> bool {
        self.uso
    }

    /// What frames from the host may leave undone: `TUN_F_*`.
    pub(super) fn set_offloads(&self, offloads: libc::c_uint) -> Result<(), NetError> {
        let offloads = libc::c_ulong::from(offloads);
        // SAFETY: the operation takes its argument by value and changes the tap alone.
        let set = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, offloads) };
        if set == 0 {
            return Ok(());
        }
        Err(NetError::Tap { step: "set the offloads of the tap", source: io::Error::last_os_error() })
    }

    /// # Safety
    /// Each of `parts` is memory that stays mapped and writable during the call, and to which no reference exists.
    pub(super) unsafe fn read(&self, parts: &[libc::iovec]) -> io::Result<usize> {
        // SAFETY: the caller's duty for what is behind `parts`; the kernel reads no more of them than their number.
        answer(unsafe { libc::readv(self.fd.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) })
    }

    /// # Safety
    /// Each of `parts` is memory that stays mapped during the call.
    pub(super) unsafe fn write(&self, parts: &[libc::iovec]) -> io::Result<usize> {
        // SAFETY: as above.
        answer(unsafe { libc::writev(self.fd.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) })
    }
}

fn answer(count: isize) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
