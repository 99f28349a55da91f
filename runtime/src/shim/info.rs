//! What the shim tells of itself: `-info` for containerd, `features` for CRI-O.

use std::io;

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::{Message as _, well_known_types::any::Any};

use super::command::bulkhead;

/// The type under which containerd looks for what a runtime supports, as JSON of the OCI runtime spec.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
const NAME: &str = "io.containerd.bulkhead.v2";

#[derive(Debug, thiserror::Error)]
pub(super) enum InfoError {
    #[error("ask for the features")]
    Features(#[source] io::Error),
    #[error("write the answer")]
    Answer(#[source] protobuf::Error),
}

/// # Errors
/// As for the command.
pub(super) fn features() -> Result<Vec<u8>, InfoError> {
    let output = bulkhead().arg("features").output();
    let output = output.map_err(InfoError::Features)?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(InfoError::Features(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())))
    }
}

/// # Errors
/// As for `features`.
pub(super) fn info() -> Result<Vec<u8>, InfoError> {
    let features = Any { type_url: FEATURES.to_owned(), value: features()?, ..Default::default() };
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..Default::default() };
    let info = RuntimeInfo {
        name: NAME.to_owned(),
        version: Some(version).into(),
        features: Some(features).into(),
        ..Default::default()
    };
    info.write_to_bytes().map_err(InfoError::Answer)
}
