//! A log file of bounded size: the first bytes and the last bytes.
//!
//!   written ─▶ head, as it comes ─full─▶ ring ─▶ [head][N bytes left out][ring], rewritten behind the head each time
//!
//! The file lies in the state directory, which is memory of the host, and a VMM decides part of what is written to it. The
//! file is complete after each write: the log of a server that was killed ends with its last line.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt as _};

/// Bytes of the beginning, and of the end.
const HEAD: usize = 32 << 10;
const TAIL: usize = 32 << 10;

#[derive(Debug)]
pub struct Bounded {
    file: File,
    head: usize,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Bounded {
    /// Goes on behind what the file has, which must not be open for append.
    ///
    /// # Errors
    /// When its length cannot be read.
    pub fn new(file: File) -> io::Result<Self> {
        let head = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        Ok(Self { file, head, tail: VecDeque::new(), left_out: 0 })
    }

    /// # Errors
    /// As for pwrite(2) and ftruncate(2). The next write may succeed again.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (first, rest) = bytes.split_at(bytes.len().min(HEAD.saturating_sub(self.head)));
        self.file.write_all_at(first, self.head as u64)?;
        self.head += first.len();
        if rest.is_empty() { Ok(()) } else { self.keep(rest) }
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let kept = &bytes[bytes.len().saturating_sub(TAIL)..];
        let over = (self.tail.len() + kept.len()).saturating_sub(TAIL);
        self.tail.drain(..over);
        self.tail.extend(kept);
        self.left_out += (bytes.len() - kept.len() + over) as u64;
        let mut end = Vec::with_capacity(TAIL + 64);
        if self.left_out > 0 {
            end.extend(format!("\n[{} bytes left out]\n", self.left_out).into_bytes());
        }
        end.extend(&self.tail);
        self.file.write_all_at(&end, self.head as u64)?;
        self.file.set_len((self.head + end.len()) as u64)
    }
}

#[cfg(test)]
mod tests;
