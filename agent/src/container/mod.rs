//! Containers as the agent sees them: made parked, released, entered by further processes, their cgroup.
//!
//!   ContainerSpec ─▶ plan ─pipe▶ `/proc/self/exe container-init` ─▶ namespaces, mounts, caps … ─▶ parked ─gate▶ exec
//!
//! Nothing here waits for a child: `reaper` does, for the pid that is answered. The caller holds
//! `Reaper::expect_children()` around `create` and `exec`, so helpers in between (a process that forks the real
//! init and exits) may be made freely and are reaped unseen. Never `Child::wait`, never tokio::process.
//! Our own ends of stdio belong to `stdio`; here only the child's ends appear.
//!
//! A module imports only what stands below it:
//!
//!   create, exec, prepare, stats         the agent's side
//!   layout, running  │  init             │ container-init's side
//!   launch
//!   message                       rootfs, start_hooks
//!   plan
//!   mounts, devices, masked, console, cgroup, volumes
//!   staging
//!   detached, and single steps: credentials, rlimits, sysctl …
//!   error, path, namespaces

mod cgroup;
mod confinement;
mod console;
mod copy_up;
mod create;
mod credentials;
mod detached;
mod device_filter;
mod devices;
mod error;
mod exec;
pub mod init;
mod launch;
mod layout;
mod masked;
mod message;
mod mounts;
mod namespaces;
mod path;
mod plan;
mod prepare;
mod program;
mod rlimits;
mod rootfs;
mod running;
mod scheduling;
mod staging;
mod start_hooks;
pub mod stats;
mod sysctl;
mod volumes;

pub use self::{
    cgroup::{Cgroup, Pressure, PressureError},
    create::{Created, ParkedInit, create},
    error::{Cause, ContainerError},
    exec::{Spawned, exec},
    launch::{ChildStdio, Launcher},
    layout::Layout,
    prepare::prepare,
    running::Running,
    volumes::{InUse, Volumes},
};
