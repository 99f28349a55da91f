//! Foreign binaries: handlers of the host, registered in the guest's kernel.
//!
//! The kernel opens each interpreter when it is registered (flag F), in the mounts of the agent, and keeps it: containers need
//! not have it. What the first user namespace has registered holds in those of containers.

use std::{fs, io, path::Path};

use bulkhead_protocol::binfmt::Handler;
use rustix::mount::{MountFlags, mount};

/// Made by the kernel, empty until binfmt_misc is mounted there.
const PLACE: &str = "/proc/sys/fs/binfmt_misc";
/// No program of it is run, and nothing of it is a container's.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

#[derive(Debug, thiserror::Error)]
pub enum BinfmtError {
    #[error("mount binfmt_misc")]
    Mount { source: io::Error },
    #[error("register the handler {name}")]
    Register { name: String, source: io::Error },
}

/// Blocks while the interpreters are opened. `share` is where the share is mounted.
///
/// # Errors
/// The first that the kernel refuses; those before it stay.
pub fn register(share: &Path, handlers: &[Handler]) -> Result<(), BinfmtError> {
    mount("binfmt_misc", PLACE, "binfmt_misc", FLAGS, c"")
        .map_err(|errno| BinfmtError::Mount { source: errno.into() })?;
    for Handler { format, interpreter } in handlers {
        let interpreter = share.join(interpreter.as_str());
        let line = format.registration(&interpreter.to_string_lossy());
        fs::write(Path::new(PLACE).join("register"), line)
            .map_err(|source| BinfmtError::Register { name: format.name().to_owned(), source })?;
    }
    Ok(())
}
