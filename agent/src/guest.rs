//! The guest as a whole: its entropy pool, facts about it.
//!
//! After a restore the pool is the same in every clone, so the host adds to it before anything else runs.

use std::{fs, io, os::fd::AsRawFd};

use bulkhead_protocol::limits;

#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("{len} bytes of entropy, at most {max} are taken at once", max = limits::ENTROPY)]
    TooMuchEntropy { len: usize },
    #[error("add entropy")]
    AddEntropy(#[source] io::Error),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub kernel_release: String,
    pub online_cpus: u32,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
}

/// Adds to the kernel's pool, credits it, and has the generator take it in.
pub fn add_entropy(data: &[u8]) -> Result<(), GuestError> {
    if data.len() > limits::ENTROPY {
        return Err(GuestError::TooMuchEntropy { len: data.len() });
    }
    credit(data).map_err(GuestError::AddEntropy)
}

/// linux/random.h: _IOW('R', 0x03, int[2]) and _IO('R', 0x07).
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

fn credit(data: &[u8]) -> io::Result<()> {
    let pool = fs::File::options().write(true).open("/dev/urandom")?;
    let request = pool_info(data);
    // SAFETY: RNDADDENTROPY reads a struct rand_pool_info: two ints, of which the second is the number of bytes that
    // follow. `pool_info` made exactly that, and the vector outlives the call.
    let added = unsafe { libc::ioctl(pool.as_raw_fd(), RNDADDENTROPY, request.as_ptr()) };
    // SAFETY: RNDRESEEDCRNG takes no argument.
    let reseeded = unsafe { libc::ioctl(pool.as_raw_fd(), RNDRESEEDCRNG) };
    if added == 0 && reseeded == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// struct rand_pool_info: entropy in bits, size in bytes, then the bytes, padded to whole ints.
fn pool_info(data: &[u8]) -> Vec<u32> {
    // At most limits::ENTROPY bytes.
    let bytes = data.len() as u32;
    let words = data.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_ne_bytes(word)
    });
    [bytes * 8, bytes].into_iter().chain(words).collect()
}

pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub fn facts() -> Facts {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    Facts {
        kernel_release: kernel_release(),
        online_cpus: cpu_list(&online).map_or(1, |cpus| cpus.len() as u32),
        memory_total_bytes: meminfo(&memory, "MemTotal").unwrap_or(0),
        memory_available_bytes: meminfo(&memory, "MemAvailable").unwrap_or(0),
    }
}

/// `0,2-4` as the kernel writes sets of CPUs.
pub fn cpu_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// One line of /proc/meminfo, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests;
