//! What the probe binary and the tests that read its answers share.

pub mod calls;
pub mod disks;
pub mod files;
pub mod neighbours;
pub mod report;
pub mod serve;
pub mod watch;

/// `length` bytes drawn from `seed` (xorshift64*): what `probe spew` writes and a test expects.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}
