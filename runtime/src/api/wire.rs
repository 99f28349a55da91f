//! Plans as they ride in requests of the Task API: JSON in an `Any` of our own type.
//!
//! A `ContainerPlan` is in `CreateTaskRequest.options`: the command has read and checked the bundle already, and what it has
//! checked is what is run. Without one the server reads the bundle itself, as it must for other callers.

use std::path::Path;

use bulkhead_protocol::id::ContainerId;
use protobuf::well_known_types::any::Any;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    container::{ContainerPlan, ExecPlan},
    spec::{self, Policy, SpecError},
};

/// Type of the options that hold a `ContainerPlan`.
const CONTAINER_PLAN: &str = "bulkhead.dev/container-plan";
/// Type of the exec spec that holds an `ExecPlan`.
const EXEC_PLAN: &str = "bulkhead.dev/exec-plan";
/// Bytes of a type's name that an error shows.
const TYPE_SHOWN: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("read the {what}")]
    Read { what: &'static str, source: serde_json::Error },
    /// A path that is not UTF-8, for one.
    #[error("write the {what}")]
    Write { what: &'static str, source: serde_json::Error },
    #[error("hooks are not supported yet in a container that is not made by the command line")]
    Hooks,
    #[error("an exec spec of type {type_url:?} is not supported yet")]
    Type { type_url: String },
}

/// For `CreateTaskRequest.options`.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn container_options(plan: &ContainerPlan) -> Result<Any, WireError> {
    any(CONTAINER_PLAN, "plan of the container", plan)
}

/// For `ExecProcessRequest.spec`.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn exec_spec(plan: &ExecPlan) -> Result<Any, WireError> {
    any(EXEC_PLAN, "plan of the process", plan)
}

/// From the options of a request, else from the bundle itself.
pub(super) fn container_plan(
    options: Option<&Any>,
    bundle: &Path,
    id: &ContainerId,
) -> Result<ContainerPlan, WireError> {
    match options {
        Some(any) if any.type_url == CONTAINER_PLAN => read("plan of the container", any),
        // What the operator allows beyond the default is the command's to know.
        _ => {
            let bundle = spec::load(bundle, id, &Policy::default(), None)?;
            if bundle.host.hooks.is_empty() { Ok(ContainerPlan::of(&bundle)?) } else { Err(WireError::Hooks) }
        }
    }
}

pub(super) fn exec_plan(any: &Any) -> Result<ExecPlan, WireError> {
    if any.type_url != EXEC_PLAN {
        return Err(WireError::Type { type_url: any.type_url.chars().take(TYPE_SHOWN).collect() });
    }
    read("plan of the process", any)
}

fn read<T: DeserializeOwned>(what: &'static str, any: &Any) -> Result<T, WireError> {
    serde_json::from_slice(&any.value).map_err(|source| WireError::Read { what, source })
}

fn any<T: Serialize>(type_url: &str, what: &'static str, value: &T) -> Result<Any, WireError> {
    let value = serde_json::to_vec(value).map_err(|source| WireError::Write { what, source })?;
    Ok(Any { type_url: type_url.to_owned(), value, ..Default::default() })
}
