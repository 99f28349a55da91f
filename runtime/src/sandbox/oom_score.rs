//! How ready the host's OOM killer is to take what stands for a container: `process.oomScoreAdj` on the host.
//!
//!   server ─writes its own─▶ VMM inherits it          proxy ─writes its own          further container ─▶ both raised
//!
//! A caller that must not die lends its score to all that it starts: CRI-O's is -999. Without a value in the spec that
//! stays, as with runc. Of several containers in one microVM the highest value counts, for none of them is worth more of
//! the host's memory than its spec says. With equal values the kernel takes the largest process first: the VMM.

use std::{fs, io, path::Path};

use crate::store::Process;

/// Of the process that reads or writes it.
const OWN: &str = "/proc/self/oom_score_adj";

#[derive(Debug, thiserror::Error)]
#[error("process.oomScoreAdj: set it to {score} for {whom} on the host{}", lowering(.source))]
pub struct OomScoreError {
    score: i32,
    whom: String,
    source: io::Error,
}

/// proc(5): below the least value that it has had, or inherited, only CAP_SYS_RESOURCE may set it.
fn lowering(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (lowering it takes CAP_SYS_RESOURCE)",
        _ => "",
    }
}

/// For this process, and those it starts from now on.
///
/// # Errors
/// When the kernel refuses.
pub fn set_own(score: i32) -> Result<(), OomScoreError> {
    let failed = |source| OomScoreError { score, whom: "this process".to_owned(), source };
    fs::write(OWN, score.to_string()).map_err(failed)
}

/// For this process and `others`, where they have less. One that is gone needs none.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn raise(score: i32, others: &[Process]) -> Result<(), OomScoreError> {
    raise_one(Path::new(OWN), score, "this process", || true)?;
    for process in others {
        let path = format!("/proc/{}/oom_score_adj", process.pid);
        raise_one(Path::new(&path), score, &process.to_string(), || process.is_alive())?;
    }
    Ok(())
}

/// `is_it` says whether what was opened belongs to the process that is meant.
fn raise_one(path: &Path, score: i32, whom: &str, is_it: impl Fn() -> bool) -> Result<(), OomScoreError> {
    let failed = |source| OomScoreError { score, whom: whom.to_owned(), source };
    let attempt = || {
        let file = fs::File::options().read(true).write(true).open(path)?;
        if !is_it() {
            return Ok(());
        }
        let now: i32 = io::read_to_string(&file)?.trim().parse().map_err(io::Error::other)?;
        if now < score { io::Write::write_all(&mut &file, score.to_string().as_bytes()) } else { Ok(()) }
    };
    match attempt() {
        // ESRCH: it ended after the file was opened.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(())
        }
        other => other.map_err(failed),
    }
}

#[cfg(test)]
mod tests;
