//! The host side of Bulkhead: bundles in, running containers out.
//!
//!   cli ─▶ spec (config.json → host part + guest part) ─▶ sandbox (one server per pod: VMM, agent, share)
//!    │                                            └▶ network (namespaces of the host, taps)
//!    └──▶ proxy (the host process that stands for one container process)
//!
//! Modules import only those before them: text, time · log · shed · spec · config · store · network, systemd · hooks · undo ·
//! sandbox · proxy · doctor · error · cli.
//!
//! Talks to the VMM and to the guest's agent over the borders of `bulkhead_protocol`; links neither.

// What goes to a person passes `text`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod cli;
pub mod config;
pub mod doctor;
pub mod error;
pub mod hooks;
pub mod log;
pub mod network;
pub mod proxy;
pub mod sandbox;
pub mod shed;
pub mod spec;
pub mod store;
pub mod systemd;
pub mod text;
pub mod time;
pub mod undo;
