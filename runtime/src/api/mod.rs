//! The border of the sandbox server: its process, its two services, and their clients.
//!
//!   creation, launch (in the command) ─spawn, bootstrap socket─▶ server: the process, from its plan to its end
//!   client, container, removal (command, proxies) ─server.sock─▶ task, sandbox: convert, check, call ─▶ container::Containers
//!
//! `wire` has the plans that ride in requests, `status` the errors that ride in answers.

pub mod client;
mod connections;
pub mod container;
mod creation;
#[cfg(fuzzing)]
pub mod fuzzing;
mod launch;
pub mod removal;
mod sandbox;
pub mod server;
mod stats;
mod status;
mod task;
mod wire;

pub use creation::{Creation, CreationError};
pub use launch::{Launch, LaunchError};
pub(crate) use stats::{from_any as metrics_from_any, none as no_metrics};
pub use wire::{WireError, container_options, exec_spec};

#[cfg(test)]
mod tests;
