//! The host side of Bulkhead: bundles in, running containers out.
//!
//!   cli ─▶ proxy ─▶ api ─▶ container ─▶ sandbox ─▶ undo, hooks ─▶ network, systemd ─▶ store, spec ─▶ config, log, …
//!
//!   cli        flags in, exit code out: a thin front end over `api`
//!   shim       the same for containerd, by its Task API
//!   proxy      the host process that stands for one container process
//!   api        the sandbox server's process, its services, and their clients
//!   container  what is known of containers, and the creation of one
//!   sandbox    a microVM and what the host gives it
//!
//! Imports go from left to right only. `docs/architecture.md` walks through a creation and follows a byte of output.
//!
//! Talks to the VMM and to the guest's agent over the borders of `bulkhead_protocol`; links neither.

// What goes to a person passes `bulkhead_sys::text`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod api;
pub mod cli;
pub mod config;
pub mod container;
pub mod doctor;
pub mod error;
pub mod hooks;
pub mod log;
pub mod network;
pub mod proxy;
pub mod sandbox;
pub mod shed;
pub mod shim;
pub mod spec;
pub mod store;
pub mod systemd;
pub mod time;
pub mod undo;
