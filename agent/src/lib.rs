//! The guest side of Bulkhead: PID 1 of the microVM and the set-up of containers in it.
//!
//!   boot ─▶ reaper ─▶ listeners of stdio and relay ─▶ control: greeting, then ttrpc on one vsock stream ─▶ service
//!   service ─▶ sandbox (one actor per container) ─▶ container (container-init), process, stdio
//!           ─▶ network, hotplug, clock, tuning, binfmt, watches
//!
//! A module imports only what stands below it:
//!
//!   control, relay
//!   service
//!   sandbox
//!   process, network, hotplug, clock, tuning, binfmt, watches
//!   stdio, reaper
//!   container
//!   host_sockets
//!   boot, log, warm, from_host
//!
//! One thread (tokio current-thread) plus a few short-lived ones for calls that block. When anything here fails for
//! good, the VM resets: the host sees its stream close and knows within milliseconds.

pub mod binfmt;
pub mod boot;
pub mod clock;
pub mod container;
pub mod control;
pub mod from_host;
pub mod host_sockets;
pub mod hotplug;
pub mod log;
pub mod network;
pub mod process;
pub mod reaper;
pub mod relay;
pub mod sandbox;
pub mod service;
pub mod stdio;
pub mod tuning;
pub mod warm;
pub mod watches;
