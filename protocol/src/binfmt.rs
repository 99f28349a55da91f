//! Handlers of foreign binaries, as the kernel's binfmt_misc knows them (Documentation/admin-guide/binfmt-misc.rst).
//!
//!   host: /proc/sys/fs/binfmt_misc/NAME ─▶ `Format` ─▶ guest: one line for /proc/sys/fs/binfmt_misc/register

use serde::{Deserialize, Serialize};

use crate::container::SharePath;

/// Handlers of one guest.
pub const HANDLERS: usize = 64;
/// Bytes at the start of a program that the kernel compares (`BINPRM_BUF_SIZE`).
const START: usize = 256;
/// Bytes of a name or an extension.
const NAME: usize = 64;

/// What the guest registers, before it has a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    pub format: Format,
    /// In the share.
    pub interpreter: SharePath,
}

/// Programs of one kind: by what they start with, or by the end of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawFormat", into = "RawFormat")]
pub struct Format(RawFormat);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFormat {
    name: String,
    start: Start,
    flags: String,
}

/// What tells a program of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// These bytes from `offset` on. A mask is as long as the magic.
    Magic { offset: u8, magic: Vec<u8>, mask: Option<Vec<u8>> },
    /// The name ends with a dot and this.
    Extension(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("the name is empty, too long, or has a character that the kernel does not take")]
    Name,
    #[error("the magic is empty or goes beyond the first 256 bytes of a program")]
    Magic,
    #[error("the mask is not as long as the magic")]
    Mask,
    #[error("the flags are not of P, O, C and F, or F is not among them")]
    Flags,
}

/// A plain word: the kernel separates fields by the first byte of a line, which is `:` here.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    !matches!(text, "" | "." | ".." | "register" | "status") && text.len() <= NAME && text.bytes().all(plain)
}

impl TryFrom<RawFormat> for Format {
    type Error = FormatError;

    fn try_from(raw: RawFormat) -> Result<Self, FormatError> {
        if !is_name(&raw.name) {
            return Err(FormatError::Name);
        }
        match &raw.start {
            Start::Extension(extension) if !is_name(extension) => return Err(FormatError::Name),
            Start::Magic { offset, magic, .. }
                if magic.is_empty() || usize::from(*offset) + magic.len() > START =>
            {
                return Err(FormatError::Magic);
            }
            Start::Magic { magic, mask: Some(mask), .. } if magic.len() != mask.len() => {
                return Err(FormatError::Mask);
            }
            Start::Extension(_) | Start::Magic { .. } => {}
        }
        let known = raw.flags.len() <= 4 && raw.flags.bytes().all(|flag| b"POCF".contains(&flag));
        // Without it the interpreter would be looked for in the container.
        if known && raw.flags.contains('F') { Ok(Self(raw)) } else { Err(FormatError::Flags) }
    }
}

impl From<Format> for RawFormat {
    fn from(format: Format) -> Self {
        format.0
    }
}

impl Format {
    /// # Errors
    /// What the kernel would not take.
    pub fn new(name: &str, start: Start, flags: &str) -> Result<Self, FormatError> {
        Self::try_from(RawFormat { name: name.to_owned(), start, flags: flags.to_owned() })
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The line for `register`, for an interpreter at this path, which has no `:`.
    pub fn registration(&self, interpreter: &str) -> String {
        let RawFormat { name, start, flags } = &self.0;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        match start {
            Start::Magic { offset, magic, mask } => {
                let mask = mask.as_deref().map(hex).unwrap_or_default();
                format!(":{name}:M:{offset}:{}:{mask}:{interpreter}:{flags}", hex(magic))
            }
            Start::Extension(extension) => format!(":{name}:E::{extension}::{interpreter}:{flags}"),
        }
    }
}

#[cfg(test)]
mod tests;
