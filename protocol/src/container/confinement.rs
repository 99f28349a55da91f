//! What every process of a container gets, the first one and those by `exec`.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::limits;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    pub seccomp: Option<Seccomp>,
    pub personality: Option<Personality>,
    pub memory_policy: Option<MemoryPolicy>,
}

/// A filter of system calls, compiled by the host for the guest's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seccomp {
    pub program: FilterProgram,
    /// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
    pub flags: u32,
}

/// The domain of personality(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personality {
    Linux,
    Linux32,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its `MPOL_F_*` bits.
    pub mode: u32,
    /// Bit N is the guest's memory node N.
    pub nodes: u64,
}

/// Classic BPF as the kernel reads it (`sock_filter` of linux/filter.h): 1 to `limits::FILTER` instructions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilterProgram(Vec<u8>);

impl fmt::Debug for FilterProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilterProgram({} instructions)", self.0.len() / Self::INSTRUCTION)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a seccomp filter has 1 to {} instructions, and this one has {length}", limits::FILTER)]
    Length { length: usize },
    #[error("a seccomp filter of {0} bytes is not made of whole instructions")]
    Fraction(usize),
    #[error("a seccomp filter is written in hexadecimal digits")]
    Digits,
}

impl FilterProgram {
    /// Bytes of one instruction.
    pub const INSTRUCTION: usize = 8;

    /// In chunks of `INSTRUCTION` bytes.
    pub fn instructions(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.chunks_exact(Self::INSTRUCTION)
    }
}

impl TryFrom<Vec<u8>> for FilterProgram {
    type Error = FilterError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, FilterError> {
        if !bytes.len().is_multiple_of(Self::INSTRUCTION) {
            return Err(FilterError::Fraction(bytes.len()));
        }
        match bytes.len() / Self::INSTRUCTION {
            1..=limits::FILTER => Ok(Self(bytes)),
            length => Err(FilterError::Length { length }),
        }
    }
}

impl TryFrom<String> for FilterProgram {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, FilterError> {
        let digit = |letter: u8| char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.ok_or(FilterError::Digits)?.try_into()
    }
}

impl From<FilterProgram> for String {
    fn from(program: FilterProgram) -> String {
        let mut text = String::with_capacity(program.0.len() * 2);
        for byte in &program.0 {
            // Writing to a String never fails.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests;
