//! What is in Bulkhead's initramfs, and how the file comes to be.
//!
//! `/init` is the agent. The directories are those PID 1 mounts on; `/dev/console` exists because the kernel opens it
//! for PID 1's descriptors 0-2 before anything is mounted. Input files are read once, within limits; the output is
//! written beside its final name and renamed, so a reader sees the old image or the new one, never half of one.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::archive::{Archive, ArchiveError, Entry, MAX_CONTENT};
use crate::elf::{self, ElfError};

#[cfg(test)]
mod tests;

/// Mount points for the agent, and their permissions.
const DIRECTORIES: [(&str, u32); 5] =
    [("/dev", 0o755), ("/proc", 0o555), ("/sys", 0o555), ("/run", 0o755), ("/tmp", 0o1777)];

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("read {}: not a regular file", .path.display())]
    NotAFile { path: PathBuf },
    #[error("read {}: larger than {MAX_CONTENT} bytes", .path.display())]
    TooLarge { path: PathBuf },
    #[error("use {} as /init", .path.display())]
    Agent { path: PathBuf, source: ElfError },
    #[error("lay out the initramfs")]
    Layout(#[source] ArchiveError),
    #[error("pack the initramfs")]
    Pack(#[source] ArchiveError),
    #[error("write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected DESTINATION=SOURCE, as in /etc/motd=./motd")]
pub struct ExtraError;

/// One more file for the image, written `destination=source` on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Absolute path in the guest.
    pub destination: String,
    /// File on this machine; executable in the guest if anyone may execute it here.
    pub source: PathBuf,
}

impl FromStr for Extra {
    type Err = ExtraError;

    fn from_str(text: &str) -> Result<Self, ExtraError> {
        match text.split_once('=') {
            Some((destination, source)) if !destination.is_empty() && !source.is_empty() => {
                Ok(Self { destination: destination.to_owned(), source: source.into() })
            }
            Some(_) | None => Err(ExtraError),
        }
    }
}

/// The complete content of an initramfs, ready to be written.
#[derive(Debug)]
pub struct Initramfs {
    archive: Archive,
}

impl Initramfs {
    /// Reads the agent, which must be a static program, and the extra files.
    pub fn new(agent: &Path, extra: &[Extra]) -> Result<Self, BuildError> {
        let (content, _) = read_file(agent)?;
        elf::check_static(&content).map_err(|source| BuildError::Agent { path: agent.to_owned(), source })?;

        let mut archive = Archive::default();
        let mut add = |path: &str, entry| archive.add(path, entry).map_err(BuildError::Layout);
        for (path, permissions) in DIRECTORIES {
            add(path, Entry::Directory { permissions })?;
        }
        add("/dev/console", Entry::CharDevice { permissions: 0o600, major: 5, minor: 1 })?;
        add("/init", Entry::File { permissions: 0o755, content })?;
        for Extra { destination, source } in extra {
            let (content, executable) = read_file(source)?;
            let permissions = if executable { 0o755 } else { 0o644 };
            add(destination, Entry::File { permissions, content })?;
        }
        Ok(Self { archive })
    }

    /// Writes the archive's bytes.
    pub fn write_to(&self, out: &mut impl Write) -> Result<(), BuildError> {
        self.archive.write_to(out).map_err(BuildError::Pack)
    }

    /// Writes the archive to `output`, replacing what is there in one step.
    pub fn write_file(&self, output: &Path) -> Result<(), BuildError> {
        let failed = |source| BuildError::Write { path: output.to_owned(), source };
        let directory =
            output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Removed when dropped, unless it was renamed.
        let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        let mut buffered = BufWriter::new(temporary.as_file_mut());
        self.write_to(&mut buffered)?;
        buffered.flush().map_err(failed)?;
        drop(buffered);
        temporary.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
        temporary.persist(output).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// The content of a regular file within the limit, and whether anyone may execute it.
fn read_file(path: &Path) -> Result<(Vec<u8>, bool), BuildError> {
    let failed = |source| BuildError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    // Checked before the open, which would wait for the other end of a fifo.
    if !metadata.is_file() {
        return Err(BuildError::NotAFile { path: path.to_owned() });
    }
    let mut content = Vec::new();
    // One byte more than allowed tells "too large" from "just fits", even if the file grows meanwhile.
    File::open(path)
        .map_err(failed)?
        .take(MAX_CONTENT as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() > MAX_CONTENT {
        return Err(BuildError::TooLarge { path: path.to_owned() });
    }
    Ok((content, metadata.permissions().mode() & 0o111 != 0))
}
