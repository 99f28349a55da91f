//! Mounts of a filesystem that is on a disk of the host: a block device, or a file that is one's image.
//!
//! The type of the mount says which filesystem it is. What is on the disk is never looked at, here or by the VMM: a container that
//! writes to its disk must not decide what the host takes it for.

use std::{fs, os::unix::fs::FileTypeExt as _, path::Path};

use bulkhead_protocol::{
    container::{DiskFilesystem, SharePath},
    id::ContainerId,
};

use super::{DiskMount, SpecError, options::Options, raw};

/// What the guest's kernel would mount; `None` for another type of mount.
pub(super) fn filesystem_of(mount: &raw::Mount) -> Option<DiskFilesystem> {
    let kind = mount.kind.as_deref()?;
    DiskFilesystem::ALL.into_iter().find(|filesystem| filesystem.name() == kind)
}

/// The disk at `named` that mount number `index` is of. `number`: the container, and how many disks its mounts have so far.
pub(super) fn of_mount(
    named: &Path,
    filesystem: DiskFilesystem,
    options: &mut Options,
    index: usize,
    number: (&ContainerId, usize),
) -> Result<DiskMount, SpecError> {
    let field = || format!("mounts[{index}].source");
    let failed = |source| SpecError::Path { field: field(), path: named.to_owned(), source };
    let source = fs::canonicalize(named).map_err(failed)?;
    let kind = fs::metadata(&source).map_err(failed)?.file_type();
    if !kind.is_block_device() && !kind.is_file() {
        let reason = format!("{} is neither a block device nor a regular file", named.display());
        return Err(SpecError::Refused { field: field(), reason });
    }
    // A file is a disk of the guest without a loop device.
    options.data.retain(|option| option != "loop" || !kind.is_file());
    if let Some(option) = options.super_flags.iter().chain(&options.data).next() {
        let field = format!("mounts[{index}].options {option:?}");
        let reason = format!("{} of a disk is mounted without options of its own", filesystem.name());
        return Err(SpecError::Refused { field, reason });
    }
    let (id, number) = number;
    let name = SharePath::try_from(format!("{id}/disks/{number}"))
        .map_err(|error| SpecError::Invalid { field: field(), reason: error.to_string() })?;
    let read_only = options.read_only() || filesystem == DiskFilesystem::Erofs;
    Ok(DiskMount { source, name, filesystem, read_only })
}

#[cfg(test)]
mod tests;
