//! Kernel parameters: of the container's own namespaces, and of the guest where the operator allows it.
//!
//! Among a container's own, only keys that a namespace carries are taken: what is left would change the whole guest
//! under other containers. Written through the staging's procfs, which shows the namespaces of whoever opens a file,
//! so the container's own /proc has no say in it.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::{
    error::{ContainerError, During},
    path::open_beneath,
};

/// The file below /proc/sys of a key that a container may set for itself, or why it may not.
pub(super) fn own_file_of(key: &str) -> Result<String, ContainerError> {
    let file = file_of(key)?;
    let namespaced = file.starts_with("net/")
        || file.starts_with("fs/mqueue/")
        || matches!(
            file.as_str(),
            "kernel/shmmax"
                | "kernel/shmall"
                | "kernel/shmmni"
                | "kernel/shm_rmid_forced"
                | "kernel/msgmax"
                | "kernel/msgmnb"
                | "kernel/msgmni"
                | "kernel/sem"
                | "kernel/hostname"
                | "kernel/domainname"
        );
    if namespaced {
        return Ok(file);
    }
    Err(ContainerError::refused(format_args!("sysctl {key:?} is not in a separate kernel namespace")))
}

/// The file below /proc/sys of a key.
pub(super) fn file_of(key: &str) -> Result<String, ContainerError> {
    // sysctl(8): the first separator decides which one separates and which one is part of a name.
    let dots_separate = key.find(['.', '/']).is_none_or(|at| key.as_bytes()[at] == b'.');
    let file: String = if dots_separate {
        let swap = |c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        key.chars().map(swap).collect()
    } else {
        key.to_owned()
    };
    let sound = file.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    if sound {
        Ok(file)
    } else {
        Err(ContainerError::refused(format_args!("sysctl {key:?} is not the name of a kernel parameter")))
    }
}

/// Writes one value. `directory` is /proc/sys.
pub(super) fn write(directory: &OwnedFd, file: &str, value: &str) -> Result<(), ContainerError> {
    const STEP: &str = "write sysctl";
    let opened = open_beneath(directory, file, OFlags::WRONLY).during(STEP, file)?;
    let written = rustix::io::write(&opened, value.as_bytes()).during(STEP, file)?;
    if written == value.len() {
        Ok(())
    } else {
        Err("the kernel took only part of the value").during(STEP, file)
    }
}

#[cfg(test)]
mod tests;
