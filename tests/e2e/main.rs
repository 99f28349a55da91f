//! The end-to-end tests: real containers in real microVMs, driven by the staged `bulkhead` alone.
//!
//! One file per topic. `make test` builds this once and runs it where `/dev/kvm` runs stock guests: here or in the lab.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod cgroup;
mod clock;
mod commands;
mod confinement;
mod containerd;
mod cri;
mod death;
mod deploy;
mod differential;
mod disks;
mod docker;
mod engine;
mod exec;
mod files;
mod forward;
mod hooks;
mod host;
mod host_memory;
mod host_sockets;
mod isolation;
mod lifecycle;
mod memory;
mod mounts;
mod network;
mod newer;
mod notify;
mod output;
mod pod;
mod podman;
mod privileges;
mod process;
mod resources;
mod rootfs;
mod rootless;
mod run;
mod sandbox;
mod schema;
mod shim;
mod size;
mod streaming;
mod systemd;
mod terminal;
mod volumes;
