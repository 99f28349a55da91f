//! Reads just enough of an ELF file to tell whether the guest kernel can start it with no loader and no C library.
//!
//! The initramfs holds nothing but the agent, so a program that names an interpreter (PT_INTERP) would fail at boot
//! with "No working init found". Saying so when the image is built is kinder. Layouts are those of elf(5).

#[cfg(test)]
pub(crate) mod tests;

const EM_X86_64: u16 = 62;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_INTERP: u32 = 3;
const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
/// Linkers write about ten; the kernel itself stops at 64 KiB of them.
const MAX_PROGRAM_HEADERS: u16 = 256;
/// An interpreter's path longer than this is cut in the message.
const MAX_SHOWN: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    #[error("not a 64-bit little-endian ELF file")]
    NotElf64,
    #[error("not an x86-64 program (machine {machine}, type {kind})")]
    NotX86Program { machine: u16, kind: u16 },
    #[error("its program headers are missing, too many, or outside the file")]
    BadProgramHeaders,
    #[error(
        "it is dynamically linked (interpreter {interpreter}), and an initramfs has no loader or C library; build it \
         with RUSTFLAGS='-C target-feature=+crt-static' and an explicit --target"
    )]
    Dynamic { interpreter: String },
}

/// Accepts an x86-64 program, position-independent or not, that needs no interpreter.
pub(crate) fn check_static(file: &[u8]) -> Result<(), ElfError> {
    // 2: 64-bit class; 1: little endian.
    let header = file.get(..HEADER_SIZE).filter(|header| header.starts_with(b"\x7fELF\x02\x01"));
    let header = header.ok_or(ElfError::NotElf64)?;
    let (kind, machine) = (u16_at(header, 16), u16_at(header, 18));
    if machine != EM_X86_64 || !matches!(kind, ET_EXEC | ET_DYN) {
        return Err(ElfError::NotX86Program { machine, kind });
    }
    for segment in program_headers(file, header).ok_or(ElfError::BadProgramHeaders)? {
        if u32_at(segment, 0) == PT_INTERP {
            return Err(ElfError::Dynamic { interpreter: interpreter(file, segment) });
        }
    }
    Ok(())
}

/// The program headers, or `None` when there are none or they are not within the file and its limits.
fn program_headers<'a>(file: &'a [u8], header: &[u8]) -> Option<impl Iterator<Item = &'a [u8]>> {
    let start = usize::try_from(u64_at(header, 32)).ok()?;
    let (size, count) = (usize::from(u16_at(header, 54)), u16_at(header, 56));
    if size != PROGRAM_HEADER_SIZE || count == 0 || count > MAX_PROGRAM_HEADERS {
        return None;
    }
    let end = start.checked_add(size * usize::from(count))?;
    Some(file.get(start..end)?.chunks_exact(size))
}

/// The path a PT_INTERP segment names, for the message only.
fn interpreter(file: &[u8], segment: &[u8]) -> String {
    let path =
        usize::try_from(u64_at(segment, 8)).ok().and_then(|start| file.get(start..)).unwrap_or_default();
    let path = &path[..path.len().min(MAX_SHOWN)];
    String::from_utf8_lossy(path.split(|byte| *byte == 0).next().unwrap_or_default())
        .escape_default()
        .to_string()
}

// The callers hand in slices of a fixed size, checked above.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
