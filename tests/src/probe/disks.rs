//! A stream from or to a disk, for the benchmark: its beginning and its end are told, for the host has the only clock.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use rustix::fs::{Advice, fadvise, fdatasync};

/// Bytes read or written at once.
pub const CHUNK: usize = 1 << 20;
/// What O_DIRECT wants of a buffer, at most.
const PAGE: usize = 4096;

/// Reads (`way` is `read`) or writes (`write`) the first `mib` MiB of a disk, past the kernel's cache when `cache` is `direct`.
/// What is written is on the disk at the end. `say` hears of `begin` and `end`.
///
/// # Errors
/// Those of the system calls, and of a word that is none of these.
pub fn stream(way: &str, path: &str, mib: &str, cache: &str, say: impl Fn(&str)) -> io::Result<()> {
    let mib: usize = mib.parse().map_err(io::Error::other)?;
    let flags = if cache == "direct" { libc::O_DIRECT } else { 0 };
    let writes = way == "write";
    let mut disk = File::options().read(true).write(writes).custom_flags(flags).open(path)?;
    let mut memory = vec![0x5a_u8; CHUNK + PAGE];
    let start = memory.as_ptr().align_offset(PAGE);
    let buffer = &mut memory[start..start + CHUNK];
    // What this kernel has cached of it is not what is measured.
    fadvise(&disk, 0, None, Advice::DontNeed)?;
    say("begin");
    for _ in 0..(mib << 20) / CHUNK {
        if writes { disk.write_all(buffer)? } else { disk.read_exact(buffer)? }
    }
    if writes {
        fdatasync(&disk)?;
    }
    say("end");
    Ok(())
}
