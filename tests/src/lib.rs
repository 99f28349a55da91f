//! The lab, the end-to-end tests and the benchmarks.
//!
//! [`lab`] gives a machine with a working `/dev/kvm` anywhere. Everything here drives the product from outside, by
//! its commands: nothing in the product knows about this crate.

pub mod bench;
pub mod crictl;
pub mod demo;
pub mod differential;
pub mod host;
pub mod lab;
pub mod probe;
#[cfg(test)]
mod structure;
pub mod suite;
