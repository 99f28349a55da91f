//! The containers of a sandbox, from the request to make one to its exit.
//!
//!   api ─▶ Containers ─▶ Table (what is known: status, exits)
//!              │    └──▶ Attachments (who holds the streams of each process on the host)
//!              ├──────▶ Creation (claim ─▶ make ─▶ record, or all undone)
//!              └──────▶ sandbox::Sandbox (the guest, the machine)
//!
//!   plan: what is to be made        status: the lifecycle on one screen        force: what a guest does not do by itself
//!   oom: kills in the guest, shown on the host

mod attachment;
mod containers;
mod creation;
mod error;
mod exit;
mod oom;
mod plan;
pub mod status;
mod stdio;
mod table;

pub(crate) use attachment::Attachment;
pub(crate) use containers::{Containers, detached};
pub(crate) use creation::Creation;
pub use creation::CreationRequest;
#[cfg(test)]
pub(crate) use creation::tests::request as test_request;
pub(crate) use error::ContainerError;
pub(crate) use exit::Exit;
pub use plan::{ContainerPlan, ExecPlan};
pub(crate) use stdio::{Stdio, StdioError, vsock as vsock_stdio};
pub(crate) use table::TableError;
