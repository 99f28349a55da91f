//! Private memory of the host processes of a pod, from `/proc/PID/smaps`.

use std::{fs, io};

/// KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Private pages beside guest memory.
    pub private: u64,
    /// Resident guest memory.
    pub guest: u64,
}

/// What a process holds for itself. A mapping of at least `guest_kib` is guest memory.
pub fn of(pid: u32, guest_kib: u64) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut memory = Memory::default();
    let mut in_guest = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let kib: u64 = value.parse().unwrap_or(0);
        match key {
            "Size:" => in_guest = kib >= guest_kib,
            "Private_Clean:" | "Private_Dirty:" if in_guest => memory.guest += kib,
            "Private_Clean:" | "Private_Dirty:" => memory.private += kib,
            _ => {}
        }
    }
    Ok(memory)
}
