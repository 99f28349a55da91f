//! Landlock: what the pivot hides stays out of reach, also through a descriptor of a directory elsewhere.
//!
//! One rule for the root of the jail allows what file serving needs; it holds for mounts that appear below later as well,
//! because the kernel looks for a rule on the way up from a file through all mounts. A file whose mount the server has
//! taken away has no such way any more, so it cannot be opened anew. Mounts cannot be changed at all.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    #[error("open the root directory")]
    Root(#[from] PathFdError),
    #[error("restrict the files within reach")]
    Ruleset(#[from] RulesetError),
}

/// Restricts this thread and every thread that it starts. Returns false, and restricts nothing, on a kernel without Landlock
/// and on one before Linux 5.19, whose Landlock forbids every rename between directories.
///
/// # Errors
/// The root directory cannot be opened, or the kernel refuses a rule.
pub(super) fn restrict() -> Result<bool, LandlockError> {
    let root = PathFd::new("/")?;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::IoctlDev)?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rule(PathBeneath::new(root, served()))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Nothing of the share is run here, and a block device cannot be made in a user namespace.
fn served() -> BitFlags<AccessFs> {
    AccessFs::from_all(ABI::V2) & !(AccessFs::Execute | AccessFs::MakeBlock)
}

#[cfg(test)]
mod tests;
